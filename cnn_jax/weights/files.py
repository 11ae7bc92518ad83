"""Files of published weights into a model's variables, and back."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array

from cnn_jax.errors import UsageError
from cnn_jax.models.registry import MODELS, create_model
from cnn_jax.weights import convert, pickle
from cnn_jax.weights import safetensors as safetensors_reader

# The largest header that the safetensors format allows; a .pth begins otherwise.
_LARGEST_HEADER = 100_000_000


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Return name -> array of a safetensors or .pth file, told apart by their content.

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
        _check_digest(path)
        return pickle.read(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LARGEST_HEADER:
        return safetensors_reader.read(path)
    raise UsageError(f"{path} is neither a safetensors nor a .pth file; save the weights as one")


def _check_digest(path: Path) -> None:
    """Compare the file's sha256 with the beginning of it that PyTorch puts into names."""
    promised = re.search(r"-([0-9a-f]{8})\.(?:pth|pt)$", path.name)
    if not promised:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(promised[1]):
        raise UsageError(
            f"{path} is damaged: its sha256 begins with {digest[:8]}, not as in its name; "
            "get it anew, or rename it if the name means something else"
        )


def load_weights(
    name: str,
    path: str | Path,
    num_classes: int | None = None,
    *,
    replace_head: bool = True,
    key: Array | None = None,
    image_shape: tuple[int, int, int] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the named model's variables as a torchvision or timm file holds them.

    Args:
      path: a safetensors or .pth file; nothing that it holds is executed.
      num_classes: the model's classes, by default as many as published. Where the file has
        another number, the layers that depend on it are drawn anew; where it is a classifier's
        and the model's backbone is that classifier, all but the backbone.
      replace_head: False makes such a file an error, as it is without num_classes.
      key: what new layers are drawn from, by default jax.random.key(0).
      image_shape: height, width and channels, where the shapes of the parameters depend on them
        and the images are not of the model's native size.
      options: those of create_model.

    Returns:
      {"params": ..., "batch_stats": ...} as Model.init gives them, float32.

    Raises:
      UsageError: the file cannot be read or does not fit the model; the message names every
        tensor that is missing, left over or of another shape.
    """
    model = create_model(name, num_classes, **options)
    shape = image_shape or (model.image_size, model.image_size, model.channels)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    key = jax.random.key(0) if key is None else key
    template = jax.eval_shape(model.init, key, images)
    tensors = read_tensors(path)

    head, beside = [], []
    if num_classes is not None and replace_head:
        wider = create_model(name, model.num_classes + 1, **options)
        head = _different(template, jax.eval_shape(wider.init, key, images))
        tensors, beside = convert.as_backbone(MODELS[name], tensors, template)
    try:
        variables = convert.from_published(MODELS[name], tensors, template, head, beside)
    except UsageError as error:
        raise UsageError(
            f"{path} does not fit {name}: {error}; name the model and the classes that it is of"
        ) from None
    leaves = flax.traverse_util.flatten_dict(variables)
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves.values()):
        raise UsageError(f"{path} holds quantised weights; load the floating-point ones")
    new = [path for path, leaf in leaves.items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    if new:
        drawn = flax.traverse_util.flatten_dict(
            jax.jit(lambda key: _only(model.init(key, images), new))(key)
        )
        leaves |= drawn
    leaves = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in leaves.items()}
    return flax.traverse_util.unflatten_dict(leaves)


def _different(one: Any, other: Any) -> list[tuple[str, ...]]:
    """Return the paths of the leaves whose shapes differ."""
    one, other = map(flax.traverse_util.flatten_dict, (one, other))
    return [path for path in one if one[path].shape != other[path].shape]


def _only(variables: Any, paths: list[tuple[str, ...]]) -> Any:
    leaves = flax.traverse_util.flatten_dict(variables)
    return flax.traverse_util.unflatten_dict({path: leaves[path] for path in paths})


def save_weights(name: str, variables: Mapping[str, Any], path: str | Path, **options: Any) -> None:
    """Write the named model's variables as safetensors under the published names.

    torchvision or timm load the file into their model of that name by load_state_dict; models
    that nobody publishes take our paths, with dots. The file appears complete or not at all.

    Args:
      options: those of create_model.

    Raises:
      UsageError: the variables are not this model's, or the file cannot be written.
    """
    model = create_model(name, **options)
    images = (1, model.image_size, model.image_size, model.channels)
    template = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct(images, jnp.float32)
    )
    if jax.tree.structure(template) != jax.tree.structure(dict(variables)):
        raise UsageError(f"these are not the variables of {name}; name the model they are of")
    tensors = {
        tensor: np.ascontiguousarray(array)
        for tensor, array in convert.to_published(MODELS[name], variables).items()
    }
    path = Path(path).expanduser()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(safetensors.numpy.save(tensors, metadata={"format": "pt"}))
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write weights to {path}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
