"""How different images look to a network: the distance of what its layers see in them.

Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric",
equation 1 with all weights one: the paper's unweighted baseline, which needs no judgements learnt
from people and so serves any network.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

_TINY = 1e-10  # keeps a place without any activation zero, as the authors' package does


def perceptual_distance(
    activations: Mapping[str, Float[Array, "n ..."]], others: Mapping[str, Float[Array, "n ..."]]
) -> Float[Array, " n"]:
    """Return how far apart two batches of images are in the features of a network's layers.

    At each place the channels are scaled to unit length; the squared differences are summed over
    the channels, averaged over a layer's places and summed over the layers. So each layer counts
    from 0, the same, to 2, nothing in common, where no activation is negative.

    Args:
      activations: path -> activation [n, ..., channels] of the images.
      others: the same of the images that they are compared with, one by one.
    """
    return sum(_of_layer(activations[path], others[path]) for path in activations)


def _of_layer(a: Float[Array, "n ... c"], b: Float[Array, "n ... c"]) -> Float[Array, " n"]:
    distance = jnp.square(_unit(a) - _unit(b)).sum(axis=-1)
    return distance.reshape(len(distance), -1).mean(axis=1)


def _unit(x: Float[Array, "n ... c"]) -> Float[Array, "n ... c"]:
    squares = jnp.square(x).sum(axis=-1, keepdims=True)
    # a root has no derivative at nought, where the place has no direction either
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return x / (length + _TINY)


def stages(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Return the last layer of each size of map, as Zhang et al. take them of VGG.

    Args:
      shapes: path -> shape of one image's activation in order of execution, see
        trained.layer_shapes; layers at the top level of the network that have rows and columns
        count.
    """
    last = {
        shape[:2]: path for path, shape in shapes.items() if "/" not in path and len(shape) == 3
    }
    return tuple(last.values())
