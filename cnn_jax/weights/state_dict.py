"""The network's tensors in what a file of weights holds, under the names its modules have.

Training scripts put the state dict beside an epoch and an optimizer, wrappers prefix its names, and
moving averages lie next to the weights they are of.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Keys of a training script's dict, under which weights and their moving average lie.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
WITHIN_AVERAGED = ("shadow", *PLAIN)

# What DataParallel, torch.compile, FSDP and recomputation put into names, wherever they wrap.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# The attribute that a trainer holds the network by, at the beginning of names.
ATTRIBUTES = ("model", "net", "network", "online_model")
AVERAGED_ATTRIBUTES = ("model_ema", "ema_model", "ema")


class Found(NamedTuple):
    """The tensors by name, and what to tell of how they were found.

    note: "" where there was no choice.
    """

    tensors: dict[str, Any]
    note: str = ""


def find(root: Any, tensor: type, averaged: bool = True) -> Found:
    """Return the network's tensors in what a file holds, {} where there are none.

    Args:
      root: containers of Python and, somewhere, tensors of this type, which have a `shape`.
      averaged: take the moving average of the weights where there is one beside them. What it
        lacks, such as the statistics of an average of the parameters alone, is taken from them.
    """
    if not isinstance(root, Mapping):
        return Found({})
    keys = [key for key in AVERAGED if _tensors(root.get(key), tensor, WITHIN_AVERAGED)]
    average = Found({})
    if keys:
        average = named(_tensors(root[keys[0]], tensor, WITHIN_AVERAGED), averaged)
    plain = named(_tensors(root, tensor, PLAIN), averaged)
    if not average.tensors or not plain.tensors:
        return plain if plain.tensors else average
    return _choose(plain, average, keys[0], averaged)


def named(tensors: Mapping[str, Any], averaged: bool = True) -> Found:
    """Return the tensors under the names of the network alone, without those of its wrappers.

    Where some names begin with the attribute that a trainer holds the network by, the others are
    not the network's. Of a network and its average side by side one is taken, see `find`.
    """
    names = {name: ".".join(p for p in name.split(".") if p not in WRAPPERS) for name in tensors}
    if any(name != short for name, short in names.items()):  # the wrapper's own counters
        names = {n: short for n, short in names.items() if "." in n or tensors[n].shape}
    found = {short: tensors[name] for name, short in names.items()}
    parts = {key: _below(found, key) for key in (*ATTRIBUTES, *AVERAGED_ATTRIBUTES)}
    plain = next((key for key in ATTRIBUTES if parts[key]), None)
    average = next((key for key in AVERAGED_ATTRIBUTES if parts[key]), None)
    if plain is None and average is None:
        return Found(found)
    inner = [named(parts[key], averaged) for key in (plain, average) if key is not None]
    taken = inner[0] if len(inner) == 1 else _choose(*inner, average, averaged)
    beside = [
        name
        for name, x in found.items()
        if not any(parts[key] and name.startswith(f"{key}.") for key in (plain, average) if key)
        and x.shape
    ]
    if not beside:
        return taken
    held = plain if plain is not None else average
    told = f"{len(beside)} beside {held!r} are left aside, such as {beside[0]}"
    return taken._replace(note="; ".join(filter(None, (taken.note, told))))


def _choose(plain: Found, average: Found, key: str, averaged: bool) -> Found:
    """Return the average, completed from the plain weights, or these."""
    if not averaged:
        return plain._replace(note=f"the plain weights are taken, not their moving average {key!r}")
    note = f"the moving average {key!r} of the weights is taken, not the plain ones"
    lacking = plain.tensors.keys() - average.tensors.keys()
    if lacking and average.tensors.keys() < plain.tensors.keys():
        return Found(
            plain.tensors | average.tensors, f"{note}, but for the {len(lacking)} it lacks"
        )
    return average._replace(note=note)


def _tensors(value: Any, tensor: type, keys: tuple[str, ...], depth: int = 3) -> dict[str, Any]:
    """Return the tensors by name of the containers under these keys, else of the value itself."""
    if not isinstance(value, Mapping) or not depth:
        return {}
    inner = (_tensors(value.get(key), tensor, keys, depth - 1) for key in keys)
    own = {k: x for k, x in value.items() if isinstance(k, str) and isinstance(x, tensor)}
    return next(filter(None, inner), own)


def _below(tensors: Mapping[str, Any], attribute: str) -> dict[str, Any]:
    prefix = f"{attribute}."
    return {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
