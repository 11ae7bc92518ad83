"""Maxout: the maximum across channels, a learned invariance."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UsageError


def maxout(
    x: Float[Array, "*positions c"], pieces: int
) -> Float[Array, "*positions c_over_pieces"]:
    """Return the maximum of each group of `pieces` neighbouring channels.

    Detectors of one thing in several poses, pooled so, answer to it in any of them. Goodfellow et
    al. 2013, section 3.

    Raises:
      UsageError: the channels do not divide into groups of that many.
    """
    channels = x.shape[-1]
    if pieces < 1 or channels % pieces:
        raise UsageError(f"{channels} channels do not divide into groups of {pieces}")
    return jnp.max(x.reshape(*x.shape[:-1], channels // pieces, pieces), axis=-1)
