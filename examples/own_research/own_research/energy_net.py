"""An architecture: filters, squared and averaged over the image.

Adelson & Bergen 1985, "Spatiotemporal energy models for the perception of motion": the sum of the
squares of two filters a quarter of a period apart is the same wherever the pattern lies.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import conv, dense, layer


@layer
def energy(scope: Scope, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Return the square of every value."""
    return jnp.square(x)


@layer
def mean(scope: Scope, x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Return the mean over rows and columns."""
    return x.mean(axis=(1, 2))


def energy_net(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    filters: int = 8,
    size: int = 7,
    hidden: Sequence[int] = (),
) -> Float[Array, "n classes"]:
    """Return the logits."""
    x = scope.child(conv, "conv")(images, filters, size=size, padding="valid")
    x = scope.child(energy, "energy")(x)
    x = scope.child(mean, "mean")(x)
    for i, features in enumerate(hidden):
        x = jnp.tanh(scope.child(dense, f"hidden{i}")(x, features))
    return scope.child(dense, "head")(x, num_classes)
