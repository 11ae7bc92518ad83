"""Files of published weights into a model's variables, and back."""

import datetime
import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array

from cnn_jax.errors import UsageError
from cnn_jax.models.entry import Entry
from cnn_jax.models.registry import create_model, find
from cnn_jax.weights import convert, norms, pickle, state_dict
from cnn_jax.weights import safetensors as safetensors_reader

# The largest header that the safetensors format allows; a .pth begins otherwise.
_LARGEST_HEADER = 100_000_000


Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Print a note."""
    print("note:", line, file=sys.stderr)


def read_tensors(
    path: str | Path, *, averaged: bool = True, say: Say = to_stderr
) -> dict[str, np.ndarray]:
    """Return name -> array of a safetensors or .pth file, told apart by their content.

    The state dict is found in what training scripts save around it, and the prefixes that wrappers
    give to names are taken off, see cnn_jax.weights.state_dict.

    Args:
      averaged: take the moving average of the weights where the file has both.
      say: takes each line of what the user should know of how the file was read.

    Raises:
      UsageError: there is no such file, it is of another kind, damaged or hostile, larger than
        the memory, or its sha256 is not the one in its name ("resnet50-0676ba61.pth").
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            start = file.read(len(pickle.STREAM_MAGIC))
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"cannot read weights from {path}: {error.strerror}") from None
    # read at once, so a file that does not fit would have the process killed
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise UsageError(f"{path} has {size / 2**30:.0f} GiB, more than this machine's memory")
    if start.startswith(pickle.ZIP_MAGIC) or start == pickle.STREAM_MAGIC:
        _check_digest(path, say)
        found = pickle.read(path, averaged)
    elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LARGEST_HEADER:
        found = state_dict.named(safetensors_reader.read(path), averaged)
    else:
        raise UsageError(
            f"{path} is neither a safetensors nor a .pth file; save the weights as one"
        )
    if found.note:
        say(f"{path}: {found.note}")
    return found.tensors


def _check_digest(path: Path, say: Say) -> None:
    """Compare the file's sha256 with the beginning of it that PyTorch puts into names."""
    promised = re.search(r"-([0-9a-f]{8})\.(?:pth|pt)$", path.name)
    if not promised:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest.startswith(promised[1]):
        return
    if _is_date(promised[1]):
        say(f"{path}: {promised[1]} is taken for a date; the file's content is not checked")
        return
    raise UsageError(
        f"{path} is damaged: its sha256 begins with {digest[:8]}, not as in its name; "
        "get it anew, or rename it if the name means something else"
    )


def _is_date(digits: str) -> bool:
    """Tell whether these are a day of this century or the end of the last, in any usual order."""
    for form in ("%Y%m%d", "%d%m%Y", "%m%d%Y"):
        try:
            if 1990 <= datetime.datetime.strptime(digits, form).year < 2100:
                return True
        except ValueError:
            pass
    return False


def load_weights(
    name: str,
    path: str | Path,
    num_classes: int | None = None,
    *,
    replace_head: bool = True,
    key: Array | None = None,
    image_shape: tuple[int, int, int] | None = None,
    averaged: bool = True,
    norm_epsilon: float | None = None,
    say: Say = to_stderr,
    **options: Any,
) -> dict[str, Any]:
    """Return the named model's variables as a torchvision or timm file holds them.

    Args:
      path: a safetensors or .pth file, also one that a training script wrote; nothing that it holds
        is executed.
      num_classes: the model's classes, by default as many as published. Where the file has
        another number, the layers that depend on it are drawn anew; where it is a classifier's
        and the model's backbone is that classifier, all but the backbone.
      replace_head: False makes such a file an error, as it is without num_classes.
      key: what new layers are drawn from, by default jax.random.key(0).
      image_shape: height, width and channels, where the shapes of the parameters depend on them
        and the images are not of the model's native size.
      averaged: take the moving average of the weights where the file has both.
      norm_epsilon: what the norms had that the model holds constant, as detectors do; by default
        what the file tells. Where the model has another, the variances take up the difference.
      say: takes each line of what the user should know of how the file was read.
      options: those of create_model.

    Returns:
      {"params": ..., "batch_stats": ...} as Model.init gives them, float32. Auxiliary heads that
      the file does without are drawn anew.

    Raises:
      UsageError: the file cannot be read or does not fit the model; the message counts the
        tensors that are missing, left over or of another shape, and names the first.
    """
    model = create_model(name, num_classes, **options)
    shape = image_shape or (model.image_size, model.image_size, model.channels)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    key = jax.random.key(0) if key is None else key
    template = jax.eval_shape(model.init, key, images)
    entry = find(name)
    raw = read_tensors(path, averaged=averaged, say=say)
    tensors, note = convert.as_published(entry, raw, template)
    if note:
        say(f"{path}: {note}")

    head, beside = [], []
    if num_classes is not None and replace_head:
        wider = create_model(name, model.num_classes + 1, **options)
        head = _different(template, jax.eval_shape(wider.init, key, images))
        tensors, beside = convert.as_backbone(entry, tensors, template)
    if not beside:
        beside = _auxiliary(entry, template, tensors)
        if beside:
            say(f"{path} holds no auxiliary head; it is drawn anew, or left out by aux_heads=False")
    try:
        variables = convert.from_published(entry, tensors, template, head, beside)
    except UsageError as error:
        raise UsageError(
            f"{path} does not fit {name}: {error}; name the model and the classes that it is of"
        ) from None
    leaves = flax.traverse_util.flatten_dict(variables)
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves.values()):
        raise UsageError(f"{path} holds quantised weights; load the floating-point ones")
    leaves, note = norms.with_epsilon(entry, leaves, list(raw), norm_epsilon)
    if note:
        say(f"{path}: {note}")
    new = [path for path, leaf in leaves.items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    if any(path in new for path in head) and not beside:
        say(f"{path}: its head is of another number of classes; it is drawn anew")
    if new:
        drawn = flax.traverse_util.flatten_dict(
            jax.jit(lambda key: _only(model.init(key, images), new))(key)
        )
        leaves |= drawn
    leaves = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in leaves.items()}
    return flax.traverse_util.unflatten_dict(leaves)


def _auxiliary(
    entry: Entry, template: Any, tensors: Mapping[str, np.ndarray]
) -> list[tuple[str, ...]]:
    """Return the paths of the auxiliary heads' variables, where no tensor is of them."""
    paths = [
        path
        for path in flax.traverse_util.flatten_dict(template)
        if re.fullmatch(r"aux\d", path[1])
    ]
    held = any(convert.tensor_name(entry, path) in tensors for path in paths)
    return [] if held else paths


def _different(one: Any, other: Any) -> list[tuple[str, ...]]:
    """Return the paths of the leaves whose shapes differ."""
    one, other = map(flax.traverse_util.flatten_dict, (one, other))
    return [path for path in one if one[path].shape != other[path].shape]


def _only(variables: Any, paths: list[tuple[str, ...]]) -> Any:
    leaves = flax.traverse_util.flatten_dict(variables)
    return flax.traverse_util.unflatten_dict({path: leaves[path] for path in paths})


def save_weights(
    name: str,
    variables: Mapping[str, Any],
    path: str | Path,
    *,
    metadata: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> None:
    """Write the named model's variables as safetensors under the published names.

    torchvision or timm load the file into their model of that name by load_state_dict; models
    that nobody publishes take our paths, with dots. The file appears complete or not at all.

    Args:
      metadata: what else the file's header says, such as the names of the classes.
      options: those of create_model.

    Raises:
      UsageError: the variables are not this model's, or the file cannot be written.
    """
    model = create_model(name, **options)
    images = (1, model.image_size, model.image_size, model.channels)
    template = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct(images, jnp.float32)
    )
    # a run keeps a collection that is empty
    variables = {name: collection for name, collection in variables.items() if collection}
    if jax.tree.structure(template) != jax.tree.structure(variables):
        raise UsageError(f"these are not the variables of {name}; name the model they are of")
    tensors = {
        tensor: np.ascontiguousarray(array)
        for tensor, array in convert.to_published(find(name), variables).items()
    }
    path = Path(path).expanduser()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(safetensors.numpy.save(tensors, metadata={**metadata, "format": "pt"}))
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write weights to {path}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
