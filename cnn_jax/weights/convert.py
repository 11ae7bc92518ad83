"""Between a model's variables and the named tensors of its published weights, both ways."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cnn_jax.errors import UsageError
from cnn_jax.models.entry import Entry

# (collection, leaf) -> the tensor's name in the published module; other leaves keep their own
LEAF_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("batch_stats", "scale"): "weight",  # of a frozen norm
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def tensor_name(entry: Entry, path: tuple[str, ...]) -> str:
    """Return the published tensor's name of a variable.

    Args:
      path: collection, scope names and leaf: ("params", "stage1_block1", "conv1", "kernel").
    """
    collection, *scopes, leaf = path
    scope_path = "/".join(scopes)
    publish = entry.published_name or (lambda path: path.replace("/", "."))
    module = publish(scope_path)
    leaf = LEAF_NAMES.get((collection, leaf), leaf)
    return f"{module}.{leaf}" if module else leaf


def _first(names: Sequence[str], count: int = 4) -> str:
    """Return the first names, each on one line and not long, and dots if there are more."""
    shown = [name[:80] if name.isprintable() else repr(name[:80]) for name in names[:count]]
    return ", ".join([*shown, "..."] if len(names) > count else shown)


def to_published_layout(leaf: str, array: np.ndarray) -> np.ndarray:
    """Return a variable in the published axis order: kernels [*size, in, out] -> [out, in, *size].

    Other leaves move their last axis, the channels, to the front.
    """
    if leaf == "kernel":
        axes = (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
        return array.transpose(axes)
    return np.moveaxis(array, -1, 0)


def from_published_layout(leaf: str, tensor: np.ndarray) -> np.ndarray:
    """Return a published tensor in our axis order, the inverse of to_published_layout."""
    if leaf == "kernel":
        return tensor.transpose((*range(2, tensor.ndim), 1, 0))
    return np.moveaxis(tensor, 0, -1)


def to_published(entry: Entry, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return published tensor name -> array, of every variable.

    The names' order is the model's order of creation; dtypes stay.
    """
    return {
        tensor_name(entry, path): to_published_layout(path[-1], np.asarray(array))
        for path, array in flatten_dict(variables).items()
    }


def as_published(
    entry: Entry, tensors: Mapping[str, np.ndarray], template: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], str]:
    """Return a file's tensors under today's published names, and what to tell of it.

    Older names, and timm's of a network that has others, become them; a tensor of timm's also takes
    the published shape where that holds the same numbers in the same order: a 1x1 convolution for
    a dense layer, a vector for a map of one pixel.
    """
    current = entry.current_name or (lambda name: name)
    tensors = {current(name): tensor for name, tensor in tensors.items()}
    if entry.timm is None:
        return tensors, ""
    leaves = flatten_dict(template)
    published = {path: tensor_name(entry, path) for path in leaves}
    theirs = {path: timm_name(entry, path) for path in leaves}
    if _count(theirs, tensors) <= _count(published, tensors):
        return tensors, ""
    renamed = {name: x for name, x in tensors.items() if name not in set(theirs.values())}
    for path, name in theirs.items():
        if name in tensors:
            shape = to_published_layout(path[-1], np.empty(leaves[path].shape, np.bool_)).shape
            renamed[published[path]] = _reshaped(np.asarray(tensors[name]), shape)
    return renamed, f"read as timm's {entry.timm.model}, whose names it has"


def timm_name(entry: Entry, path: tuple[str, ...]) -> str:
    """Return timm's tensor name of a variable, see tensor_name."""
    collection, *scopes, leaf = path
    module = entry.timm.module("/".join(scopes))
    leaf = LEAF_NAMES.get((collection, leaf), leaf)
    return f"{module}.{entry.timm.leaves.get(leaf, leaf)}"


def _count(names: Mapping[Any, str], tensors: Mapping[str, Any]) -> int:
    return sum(name in tensors for name in names.values())


def _reshaped(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the tensor in this shape if the two differ by axes of 1, or by one flattened tail."""
    ones = [[n for n in each if n != 1] for each in (tensor.shape, shape)]
    flat = len(shape) == 2 and tensor.shape[:1] == shape[:1] and tensor.size == math.prod(shape)
    return tensor.reshape(shape) if ones[0] == ones[1] or flat else tensor


def as_backbone(
    entry: Entry, tensors: Mapping[str, np.ndarray], template: Mapping[str, Any]
) -> tuple[Mapping[str, np.ndarray], list[tuple[str, ...]]]:
    """Return a classifier's tensors as those of a network's backbone, and the variables beside it.

    As they are, and none, where they are not a ResNet's for a network that is built on one.
    """
    names = {path: tensor_name(entry, path) for path in flatten_dict(template)}
    for prefix in ("backbone.body.", "backbone."):
        beside = [path for path, name in names.items() if not name.startswith(prefix)]
        if len(beside) < len(names) and "fc.weight" in tensors:
            features = {f"{prefix}{n}": t for n, t in tensors.items() if not n.startswith("fc.")}
            return features, beside
    return tensors, []


def from_published(
    entry: Entry,
    tensors: Mapping[str, np.ndarray],
    template: Mapping[str, Any],
    replaced: Iterable[tuple[str, ...]] = (),
    drawn: Iterable[tuple[str, ...]] = (),
) -> dict[str, Any]:
    """Return the variables that these published tensors fill.

    Args:
      tensors: published name -> array, see as_published. num_batches_tracked and what the entry
        calls unused are left aside.
      template: variables as arrays or jax.ShapeDtypeStructs, for their shapes.
      replaced: paths of variables that keep the template's value where the tensor's shape differs.
      drawn: paths of variables that keep it in any case, as no tensors are of them.

    Returns:
      The nested dict of the template with the tensors' values, their dtypes kept.

    Raises:
      UsageError: tensors are missing, left over or of another shape; they are counted, and the
        first of them named.
    """
    leaves = flatten_dict(template)
    filled = {path: leaves.pop(path) for path in drawn}
    names = {path: tensor_name(entry, path) for path in leaves}
    wanted = set(names.values())
    missing = [name for name in names.values() if name not in tensors]
    left_over = [
        name
        for name in tensors
        if name not in wanted
        and not name.endswith("num_batches_tracked")
        and not (entry.unused and name.startswith(entry.unused))
    ]
    replaced = frozenset(replaced)
    misshapen = []
    for path, leaf in leaves.items():
        if names[path] not in tensors:
            continue
        tensor = np.asarray(tensors[names[path]])
        fits_rank = tensor.ndim == len(leaf.shape)
        array = from_published_layout(path[-1], tensor) if fits_rank else tensor
        if array.shape == tuple(leaf.shape):
            filled[path] = array
        elif path in replaced:
            filled[path] = leaf
        else:
            expected = to_published_layout(path[-1], np.empty(leaf.shape, np.bool_)).shape
            misshapen.append(f"{names[path]} is {list(tensor.shape)}, not {list(expected)}")
    complaints = [
        f"{len(names)} {kind}: {_first(names)}"
        for kind, names in (
            ("missing", missing),
            ("left over", left_over),
            ("of another shape", misshapen),
        )
        if names
    ]
    if complaints:
        raise UsageError("; ".join(complaints))
    return unflatten_dict(filled)
