"""Pooling: a summary statistic of each neighbourhood."""

import functools
import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.ops import cpu_pooling
from cnn_jax.ops.geometry import Padding, Window, output_size, padding_pairs, per_axis
from cnn_jax.ops.portable import by_platform
from cnn_jax.ops.separable import depthwise_conv


def pooling_windows(
    spatial: Sequence[int],
    size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    ceil_mode: bool,
) -> tuple[list[Window], list[int]]:
    """Return each axis' window and number of outputs.

    The windows' padding is what makes the outputs come out so: more after the end where ceil mode
    lets the last window reach further.
    """
    axes = len(spatial)
    sizes = per_axis(size, axes)
    strides = sizes if stride is None else per_axis(stride, axes)
    windows, outputs = [], []
    for pixels, taps, step, (before, after) in zip(
        spatial, sizes, strides, padding_pairs(padding, sizes, (1,) * axes), strict=True
    ):
        count = output_size(pixels, Window(taps, step, (before, after)), ceil_mode=ceil_mode)
        reached = (count - 1) * step + taps - pixels - before
        windows.append(Window(taps, step, (before, max(after, reached))))
        outputs.append(count)
    return windows, outputs


def _reduce_windows(x, initial, operation, windows):
    """Reduce each window of x [n, *spatial, c]."""
    return jax.lax.reduce_window(
        x,
        initial,
        operation,
        (1, *(window.size for window in windows), 1),
        (1, *(window.stride for window in windows), 1),
        [(0, 0), *(window.zeros for window in windows), (0, 0)],
    )


def max_pool(
    x: Float[Array, "n *spatial c"],
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    *,
    ceil_mode: bool = False,
) -> Float[Array, "n *outputs c"]:
    """Return the maximum of each window; padding never wins. The stride defaults to the size.

    The gradient goes to the first of equal maxima. For ceil_mode see geometry.output_size.
    """
    windows, outputs = pooling_windows(x.shape[1:-1], size, stride, padding, ceil_mode)
    reduce = partial(_reduce_windows, initial=-np.inf, operation=jax.lax.max, windows=windows)
    if math.prod(window.size for window in windows) > cpu_pooling.MOST_TAPS:
        return reduce(x)
    on_cpu = partial(cpu_pooling.max_pool, windows=tuple(windows), outputs=tuple(outputs))
    return by_platform(x, cpu=on_cpu, default=reduce)


def avg_pool(
    x: Float[Array, "n *spatial c"],
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    *,
    count_padding: bool = True,
    ceil_mode: bool = False,
) -> Float[Array, "n *outputs c"]:
    """Return the mean of each window, over its size or, without count_padding, over its pixels.

    What ceil mode lets a window reach beyond the padding is never counted, as in PyTorch.
    """
    windows, outputs = pooling_windows(x.shape[1:-1], size, stride, padding, ceil_mode)
    total = _reduce_windows(x, 0.0, jax.lax.add, windows)
    pairs = padding_pairs(padding, [window.size for window in windows], (1,) * len(windows))
    counts = []
    for pixels, window, count, (before, after) in zip(
        x.shape[1:-1], windows, outputs, pairs, strict=True
    ):
        first = np.arange(count) * window.stride - before
        low, high = (-before, pixels + after) if count_padding else (0, pixels)
        counts.append(np.clip(first + window.size, low, high) - np.clip(first, low, high))
    # numpy: the divisors are constants of the compiled function
    return total / math.prod(np.ix_(*counts))[..., None].astype(x.dtype)


def gaussian_weights(sizes: Sequence[int], sigma: float) -> Float[np.ndarray, "*sizes"]:
    """Return exp(-d^2 / 2 sigma^2) of each tap's distance d, in pixels, to the window's centre."""
    axes = [np.exp(-((np.arange(s) - (s - 1) / 2) ** 2) / (2 * sigma**2)) for s in sizes]
    return functools.reduce(np.multiply.outer, axes)


def gaussian_pool(
    x: Float[Array, "n *spatial c"],
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    *,
    sigma: float,
) -> Float[Array, "n *outputs c"]:
    """Return each window's mean with weights that fall off from its centre, see gaussian_weights.

    Sigma is in pixels. The weights of a window's pixels add up to one; padding has no weight.
    """
    windows, _ = pooling_windows(x.shape[1:-1], size, stride, padding, False)
    weights = jnp.asarray(gaussian_weights([window.size for window in windows], sigma), x.dtype)
    settings = {
        "stride": [window.stride for window in windows],
        "padding": [window.zeros for window in windows],
    }
    kernel = jnp.broadcast_to(weights[..., None, None], (*weights.shape, 1, x.shape[-1]))
    ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    return depthwise_conv(x, kernel, **settings) / depthwise_conv(
        ones, weights[..., None, None], **settings
    )


def l2_pool(
    x: Float[Array, "n *spatial c"],
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "valid",
) -> Float[Array, "n *outputs c"]:
    """Return the root of the sum of squares of each window; its gradient at all zeros is zero."""
    windows, _ = pooling_windows(x.shape[1:-1], size, stride, padding, False)
    squares = _reduce_windows(jnp.square(x), 0.0, jax.lax.add, windows)
    positive = squares > 0
    # the inner where keeps the root's infinite slope at zero out of the gradient
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def global_avg_pool(x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """Return the mean over all spatial positions, so that any input size gives one vector."""
    default = partial(jnp.mean, axis=tuple(range(1, x.ndim - 1)))
    return by_platform(x, cpu=cpu_pooling.global_avg_pool, default=default)
