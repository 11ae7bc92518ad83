"""A network of two convolutions, small enough that every method and attack compiles at once."""

from functools import partial

from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax import layers


def tiny(scope: Scope, images: Float[Array, "n h w c"], num_classes: int = 4):
    """Return the logits [n, num_classes] of images of any size."""
    x = scope.child(partial(layers.conv, features=6), "conv1")(images)
    x = scope.child(layers.relu, "relu1")(x)
    x = scope.child(partial(layers.conv, features=8, stride=2), "conv2")(x)
    x = scope.child(layers.relu, "relu2")(x)
    return scope.child(partial(layers.dense, features=num_classes), "head")(x.mean(axis=(1, 2)))
