"""The flag that names layers of a network."""

from absl import flags

from cnn_jax.errors import unknown
from cnn_jax.trained import Trained, layer_shapes


def define() -> None:
    """Define the flag."""
    flags.DEFINE_list(
        "layers",
        None,
        "Paths of layers; by default those at the top level of the network, such as its blocks.",
        module_name="Layers",
    )


def chosen(network: Trained, image_size: tuple[int, ...]) -> tuple[str, ...]:
    """Return the paths of --layers, or of the network's children, in order of execution.

    Raises:
      UsageError: a path that no layer has.
    """
    known, wanted = layer_shapes(network, image_size), flags.FLAGS.layers
    for path in wanted or ():
        if path not in known:
            raise unknown("layer", path, known)
    return tuple(path for path in known if path in (wanted or _children(known)))


def _children(paths: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(path for path in paths if "/" not in path)
