"""Penalties that keep an optimised image like an image; each is one number an image."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = float | Float[Array, ""]


def l2(images: Float[Array, "n h w c"]) -> Float[Array, " n"]:
    """Return the sum of the squares: the penalty of Simonyan et al. 2014, section 2."""
    return jnp.sum(images**2, axis=(1, 2, 3))


def alpha_norm(images: Float[Array, "n h w c"], alpha: Scalar = 6.0) -> Float[Array, " n"]:
    """Return sum |x|^alpha, which keeps values in a range: Mahendran & Vedaldi 2015, section 2.1.

    Args:
      images: centred, so that mid-grey costs nothing.
    """
    return jnp.sum(jnp.abs(images) ** alpha, axis=(1, 2, 3))


def total_variation(images: Float[Array, "n h w c"], beta: Scalar = 2.0) -> Float[Array, " n"]:
    """Return sum (d_x^2 + d_y^2)^(beta / 2) of the differences to the right and lower neighbours.

    Each channel counts by itself; the last column has no right, the last row no lower neighbour.
    Mahendran & Vedaldi 2015, section 2.1; beta = 1 is the total variation of Rudin et al. 1992.
    """
    right = jnp.pad(jnp.diff(images, axis=2), ((0, 0), (0, 0), (0, 1), (0, 0)))
    lower = jnp.pad(jnp.diff(images, axis=1), ((0, 0), (0, 1), (0, 0), (0, 0)))
    squares = right**2 + lower**2
    flat = squares == 0  # there a root has no derivative; nought is its subgradient of least norm
    return jnp.sum(jnp.where(flat, 0, jnp.where(flat, 1, squares) ** (beta / 2)), axis=(1, 2, 3))
