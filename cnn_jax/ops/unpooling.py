"""Max pooling that remembers where its maxima were, and its partial inverse."""

import itertools
import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cnn_jax.ops.geometry import Padding, Window
from cnn_jax.ops.pooling import pooling_windows
from cnn_jax.ops.shifts import pad, under_tap


def max_pool_with_argmax(
    x: Float[Array, "n *spatial c"],
    size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    *,
    ceil_mode: bool = False,
) -> tuple[Float[Array, "n *outputs c"], Int[Array, "n *outputs c"]]:
    """Return each window's maximum and where it is: int32, the pixel's number in row-major order.

    Of equal maxima the first counts; padding never wins; as PyTorch's return_indices. The switches
    of Zeiler & Fergus 2014, section 2.1.
    """
    n, *spatial, c = x.shape
    windows, outputs = pooling_windows(spatial, size, stride, padding, ceil_mode)
    every = [Window(1), *windows, Window(1)]
    padded = pad(x, every, -np.inf)
    best = jnp.full((n, *outputs, c), -np.inf, x.dtype)
    index = jnp.zeros(best.shape, jnp.int32)
    found = np.zeros((1, *outputs, 1), bool)  # whether the window met a pixel yet
    for taps in itertools.product(*(range(window.size) for window in windows)):
        pixels = [
            np.arange(count) * window.stride + tap - window.zeros[0]
            for count, window, tap in zip(outputs, windows, taps, strict=True)
        ]
        inside = [(at >= 0) & (at < size) for at, size in zip(pixels, spatial, strict=True)]
        inside = np.logical_and.reduce(np.meshgrid(*inside, indexing="ij"))[None, ..., None]
        number = np.ravel_multi_index(np.ix_(*pixels), spatial, mode="clip")[None, ..., None]
        values = under_tap(padded, (0, *taps, 0), every, best.shape)
        better = inside & (~found | (values > best) | jnp.isnan(values))
        best = jnp.where(better, values, best)
        index = jnp.where(better, number, index)
        found |= inside
    return best, index


@partial(jax.jit, static_argnames="spatial")  # named in the jaxpr, for the analysis
def max_unpool(
    values: Float[Array, "n *outputs c"],
    indices: Int[Array, "n *outputs c"],
    spatial: tuple[int, ...],
) -> Float[Array, "n *spatial c"]:
    """Put pooled values back where they came from, zeros elsewhere.

    Args:
      values: what max_pool_with_argmax returned, or later activations of the same shape. Where
        overlapping windows chose the same pixel, one of their values stays.
      indices: where to, as max_pool_with_argmax returned it.
      spatial: sizes of the result.
    """
    n, *_, c = values.shape
    empty = jnp.zeros((n, math.prod(spatial), c), values.dtype)
    rows, columns = jnp.arange(n)[:, None, None], np.arange(c)
    filled = empty.at[rows, indices.reshape(n, -1, c), columns].set(values.reshape(n, -1, c))
    return filled.reshape(n, *spatial, c)
