"""How a training step comes to fit into a limit of memory: by parts, and by computing again.

The step is compiled as it is, then with ever more rematerialisation, then so in 2, 4, 8, ... parts
of the batch, until its peak, told by the compiler, is within the limit.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree

from cnn_jax.errors import UsageError
from cnn_jax.programs.plan import DoesNotFit, compile_for_account, lower_step
from cnn_jax.training.config import RECOMPUTED, TrainConfig
from cnn_jax.training.paths import freezing


def as_before(config: TrainConfig, before: dict[str, Any]) -> TrainConfig:
    """Return the configuration with what was chosen for the run so far, unless that is given.

    Args:
      before: the configuration in its newest checkpoint; {} where there is none.
    """
    if config.memory_limit is None or not before:
        return config
    if config.accumulate is None:
        config = dataclasses.replace(config, accumulate=before["accumulate"])
    if not _is_given(config):
        config = dataclasses.replace(config, **{name: before[name] for name in RECOMPUTED})
    return config


def fitted(
    config: TrainConfig,
    account_of: Callable[[TrainConfig], dict[str, Any]],
    devices: int = 1,
    with_norms: bool = False,
) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the configuration whose step fits into its memory_limit, and that step's account.

    It is the fastest of `choices` that fits. What is given, of them, stays.

    Args:
      account_of: configuration -> programs.plan.account of its step; may raise DoesNotFit.
      devices, with_norms: see choices.

    Raises:
      UsageError: no step fits.
    """
    limit = config.memory_limit * 2**30
    options = list(choices(config, devices, with_norms))
    measured: dict[str, tuple[int, float, float]] = {}  # by what is recomputed, in the most parts
    least, smallest = math.inf, options[-1]
    for option in options:
        again = _recomputed(option)
        if again in measured and option is not options[-1]:
            # beside the arguments nothing shrinks by more than the parts do
            parts, held, peak = measured[again]
            if held + (peak - held) * parts / option.accumulate > limit:
                continue
        try:
            account = account_of(option)
        except DoesNotFit:
            continue
        held, peak = account["argument_bytes"], account["peak_bytes"]
        if peak <= limit:
            return option, account
        if held > limit:  # whatever is recomputed, and in any number of parts
            raise UsageError(
                f"--memory_limit={config.memory_limit:g} is too little for {config.model}: its "
                f"parameters, the optimizer's state and a batch alone take {held / 2**30:.3g} GiB; "
                "raise it, or lower --batch_size or --image_size"
            )
        measured[again] = option.accumulate, held, peak
        if peak < least:
            least, smallest = peak, option
    takes = f"takes {least / 2**30:.3g} GiB" if least < math.inf else "does not fit"
    raise UsageError(
        f"--memory_limit={config.memory_limit:g} is too little for {config.model}: the smallest "
        f"step, {words(smallest)}, {takes}; raise it, or lower --batch_size or --image_size"
        + ("" if len(options) > 1 else ", or leave out --accumulate and --remat")
    )


def choices(
    config: TrainConfig, devices: int = 1, with_norms: bool = False
) -> Iterator[TrainConfig]:
    """Yield the configurations by which a step may take less memory, the fastest first.

    What is recomputed makes no other numbers; parts do where batch norms see one at a time, so they
    come last, and have two examples at least, or whole groups of norm_batch.

    Args:
      devices: among which each part divides.
      with_norms: whether the network takes batch statistics in training.
    """
    parts = (2**i for i in range(config.batch_size.bit_length()))
    parts = [count for count in parts if count == 1 or _divides(config, count, devices, with_norms)]
    for count in [config.accumulate] if config.accumulate else parts:
        if _is_given(config):
            yield dataclasses.replace(config, accumulate=count, remat=bool(config.remat))
            continue
        for name in (None, *RECOMPUTED):
            chosen = {"remat": False} | ({name: True} if name else {})
            yield dataclasses.replace(config, accumulate=count, **chosen)


def line(config: TrainConfig, account: dict[str, Any], with_norms: bool = False) -> str:
    """Return in words what was chosen, the step's peak memory, and what it means for the norms."""
    said = f"the step takes {account['peak_bytes'] / 2**30:.3g} of {config.memory_limit:g} GiB"
    said += f", {words(config)}"
    if with_norms and config.accumulate > 1 and config.norm_batch is None:
        examples = config.batch_size // config.accumulate
        said += f"; batch norms see {examples} examples at a time instead of {config.batch_size}"
    return said


def thawed(config: TrainConfig) -> TrainConfig:
    """Return the configuration of the steps that train all parameters."""
    return dataclasses.replace(config, freeze=None, thaw_at=None)


def account(
    step_of: Callable[[TrainConfig], Callable[[PyTree, PyTree], Any]],
    state: PyTree,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    devices: Sequence[jax.Device],
    config: TrainConfig,
) -> dict[str, Any]:
    """Return programs.plan.account of the run's largest step, for fitted.

    Args:
      step_of: configuration -> step(state, batch), not jitted.
      state, batch: shapes, the batch's of all devices together.

    Raises:
      DoesNotFit: the compiler of the devices says so.
    """
    step = step_of(config if config.thaw_at is None else thawed(config))
    return compile_for_account(lower_step(step, state, batch, devices, config.shard_state))


def chosen(config: TrainConfig, account: Mapping[str, Any]) -> dict[str, Any]:
    """Return what results.json keeps of the choice."""
    names = ("memory_limit", "accumulate", *RECOMPUTED)
    return {name: getattr(config, name) for name in names} | {"peak_bytes": account["peak_bytes"]}


def takes_batch_statistics(config: TrainConfig, variables: PyTree) -> bool:
    """Return whether the network has batch norms that are trained at some step of the run."""
    stays = freezing(config.freeze if config.thaw_at is None else None)
    trained = [path for path in flatten_dict(variables["params"]) if not stays("/".join(path))]
    norms = {path[:-1] for path in flatten_dict(variables.get("batch_stats", {}))}
    return any(path[:-1] in norms for path in trained)


def words(config: TrainConfig) -> str:
    """Return in words in how many parts a step goes, and what it recomputes."""
    again = _recomputed(config)
    parts = f"with --accumulate={config.accumulate}" if config.accumulate > 1 else "the batch whole"
    if config.accumulate > 1 and again:
        return f"{parts} and --{again}"
    return f"{parts}, with --{again}" if again else parts


def _divides(config: TrainConfig, parts: int, devices: int, with_norms: bool) -> bool:
    """Whether the batch divides into so many parts of each device, none too small for its norms."""
    if config.batch_size % (parts * devices):
        return False
    examples = config.batch_size // parts
    if with_norms and config.norm_batch is not None:
        return examples % config.norm_batch == 0
    return examples > 1 or not with_norms


def _is_given(config: TrainConfig) -> bool:
    return config.remat is not None or any(getattr(config, name) for name in RECOMPUTED)


def _recomputed(config: TrainConfig) -> str:
    return next((name for name in RECOMPUTED if getattr(config, name)), "")
