"""Normalisation by statistics of the batch, or of neighbouring channels."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cnn_jax.ops.convolution import conv
from cnn_jax.ops.portable import by_platform


def batch_moments(
    x: Float[Array, "n *spatial c"],
    axis_name: str | None = None,
    shift: Float[Array, " c"] | None = None,
    kept: Callable[[PyTree], PyTree] = lambda means: means,
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Return each channel's mean and (biased) variance over the batch, at least in float32.

    With axis_name the batch is the union over that mapped axis.

    One pass over x less a shift near its mean, so that the squares do not cancel however far the
    mean lies from zero: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance",
    equation 1.6. The shift is the mean of every eighth row. As these are an eighth of the values at
    least, it is less than three deviations from the mean, whatever the others are.

    Args:
      shift: what is taken instead, the same on all devices. It does not wait for x, so that an
        accelerator takes the moments while it makes x, without reading it again.
      kept: is given, and returns, the means over the batch, of which all else is computed, the
        gradient too: names them for rematerialisation.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    if shift is None:
        some = x[:, ::8] if x.ndim > 2 else x  # by rows, for the examples lie on different devices
        shift = some.mean(axes)
        if axis_name is not None:
            shift = jax.lax.pmean(shift, axis_name)
    shift = kept(jax.lax.stop_gradient(shift))
    mean, mean_of_squares = (x - shift).mean(axes), jnp.square(x - shift).mean(axes)
    if axis_name is not None:
        mean, mean_of_squares = jax.lax.pmean((mean, mean_of_squares), axis_name)
    mean, mean_of_squares = kept((mean, mean_of_squares))
    # rounding can bring a constant channel's difference below zero
    return shift + mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0)


@jax.custom_vjp
def _products(x):
    """Return the sum over all positions of x's outer product with itself, at least in float32."""
    precision = jnp.promote_types(x.dtype, jnp.float32)
    axes, spatial = tuple(range(x.ndim - 1)), "HWD"[: x.ndim - 2]

    def product(x):
        contracted = ((axes, axes), ((), ()))
        return jax.lax.dot_general(x, x, contracted, preferred_element_type=precision)

    def convolution(x):  # reads x in the layout that the convolutions beside it have
        return jax.lax.conv_general_dilated(
            x,
            x,
            (1,) * len(spatial),
            "VALID",
            dimension_numbers=(f"C{spatial}N", f"I{spatial}O", f"N{spatial}C"),
            preferred_element_type=precision,
        ).reshape(x.shape[-1], x.shape[-1])

    return by_platform(x, cpu=product, default=convolution)


def _products_backward(x, g):
    return (pointwise(x, g + g.T),)


_products.defvjp(lambda x: (_products(x), x), _products_backward)


def pointwise(
    x: Float[Array, "n *spatial c"], kernel: Float[Array, "c f"]
) -> Float[Array, "n *spatial f"]:
    """Return x @ kernel in x's dtype, as a convolution."""
    return conv(x, kernel.astype(x.dtype)[(None,) * (x.ndim - 2)])


def pointwise_moments(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "c f"],
    axis_name: str | None = None,
    kept: Callable[[PyTree], PyTree] = lambda means: means,
) -> tuple[Float[Array, " f"], Float[Array, " f"]]:
    """Return what batch_moments does of x @ kernel, at least in float32, without making that.

    A product's mean is the mean's product, and its variance that of x's covariances: of f channels
    from fewer, c, this reads and writes less than a pass over the product would, and so does its
    gradient. In floating point it is as exact as the covariances, which are means of products less
    the product of means: for bfloat16, and not for float32.
    """
    precision = jnp.promote_types(x.dtype, jnp.float32)
    axes = tuple(range(x.ndim - 1))
    means = x.mean(axes, dtype=precision)
    products = _products(x) / (x.size // x.shape[-1])
    if axis_name is not None:
        means, products = jax.lax.pmean((means, products), axis_name)
    means, products = kept((means, products))
    covariances = products - means[:, None] * means
    exact = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    kernel = kernel.astype(precision)
    variance = (kernel * exact(covariances, kernel)).sum(0)
    return exact(means, kernel), jnp.maximum(variance, 0)


def normalize(
    x: Float[Array, "n *spatial c"],
    mean: Float[Array, " c"],
    variance: Float[Array, " c"],
    scale: Float[Array, " c"],
    offset: Float[Array, " c"],
    epsilon: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + offset in x's dtype.

    Ioffe & Szegedy 2015, algorithm 1; the two affine maps are folded into one multiply-add.
    """
    slope, shift = slope_and_shift(x.dtype, mean, variance, scale, offset, epsilon)
    return x * slope.astype(x.dtype) + shift.astype(x.dtype)


def slope_and_shift(
    dtype: jnp.dtype,
    mean: Float[Array, " c"],
    variance: Float[Array, " c"],
    scale: Float[Array, " c"],
    offset: Float[Array, " c"],
    epsilon: float = 1e-5,
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Return the slope and the shift that are normalize's map of x, at least in float32."""
    precision = jnp.promote_types(dtype, jnp.float32)
    slope = scale * jax.lax.rsqrt(variance.astype(precision) + epsilon)
    return slope, offset - mean * slope


def local_response_norm(
    x: Float[Array, "*positions c"],
    size: int = 5,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    mean_of_squares: bool = False,
) -> Float[Array, "*positions c"]:
    """Divide each channel by the activity of its neighbours at the same pixel.

    out[c] = x[c] / (k + alpha * sum of x[j]^2 over the size channels j around c)^beta, channels
    beyond the ends being zero. The defaults are the paper's: Krizhevsky et al. 2012, section 3.3.
    An even size takes one more channel before than after.

    Args:
      mean_of_squares: divide the sum by size, as PyTorch and Caffe do; their AlexNet's alpha of
        1e-4 is the paper's 2e-5 then. Their k is 1.
    """
    before, after = size // 2, (size - 1) // 2
    ends = [(0, 0)] * (x.ndim - 1)
    squares = jnp.pad(jnp.square(x), [*ends, (before, after)])
    channels = x.shape[-1]
    # shifted sums: a window over the channels is several times slower on the CPU
    total = sum(squares[..., shift : shift + channels] for shift in range(size))
    return x * (k + (alpha / size if mean_of_squares else alpha) * total) ** -beta
