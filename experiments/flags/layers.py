"""The layers of a network that an experiment looks at."""

import jax
from absl import flags

from cnn_jax import taps
from cnn_jax.errors import unknown
from cnn_jax.trained import Trained

LAYERS = flags.DEFINE_list(
    "layers",
    None,
    "Paths of layers; by default the network's own children, a block being one.",
    module_name="Layers",
)


def shapes(network: Trained, image_size: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return path -> shape of the activation, without the examples' axis, of every layer."""
    images = jax.ShapeDtypeStruct((1, *image_size), "float32")
    found = taps.activation_shapes(network.model.apply, network.variables, images)
    return {path: shape.shape[1:] for path, shape in found.items()}


def chosen(network: Trained, image_size: tuple[int, ...]) -> tuple[str, ...]:
    """Return the paths of --layers, or of the network's children, in order of execution.

    Raises:
      UsageError: a path that no layer has.
    """
    known = shapes(network, image_size)
    for path in LAYERS.value or ():
        if path not in known:
            raise unknown("layer", path, known)
    return tuple(path for path in known if path in (LAYERS.value or _children(known)))


def _children(paths: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(path for path in paths if "/" not in path)
