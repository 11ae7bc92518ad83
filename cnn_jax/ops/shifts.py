"""A window's taps as shifted, strided slices of the whole array; and arrays made of patches."""

import itertools
import math
from collections.abc import Sequence

import jax
from jaxtyping import Array, Shaped

from cnn_jax.ops.geometry import Window


def pad(x: Shaped[Array, "*sizes"], windows: Sequence[Window], value: float) -> Array:
    """Return x with each axis' padding, filled with the value; negative padding crops."""
    return jax.lax.pad(x, x.dtype.type(value), [(*window.zeros, 0) for window in windows])


def under_tap(
    padded: Shaped[Array, "*sizes"],
    taps: Sequence[int],
    windows: Sequence[Window],
    outputs: Sequence[int],
) -> Shaped[Array, "*outputs"]:
    """Return what one tap of the window meets at every output position.

    Args:
      padded: the array after `pad`.
      taps: which tap, one number an axis.
      windows: one an axis, Window(1) where nothing slides.
      outputs: positions along each axis.
    """
    starts = [tap * window.dilation for tap, window in zip(taps, windows, strict=True)]
    strides = [window.stride for window in windows]
    limits = [
        start + (count - 1) * stride + 1
        for start, count, stride in zip(starts, outputs, strides, strict=True)
    ]
    return jax.lax.slice(padded, starts, limits, strides)


def tiled(
    patches: Shaped[Array, "n *blocks_and_sizes c"],
    windows: Sequence[Window],
    outputs: Sequence[int],
) -> Shaped[Array, "n *outputs c"]:
    """Lay patches [n, *blocks, *sizes, c] side by side, and take an array's padding off.

    Args:
      windows: one a spatial axis; the padding before it is cropped, or added where it is negative.
      outputs: sizes of the array without its padding.
    """
    count, *spatial, channels = patches.shape
    axes = len(outputs)
    pairs = itertools.chain(*((1 + axis, 1 + axes + axis) for axis in range(axes)))
    whole = [math.prod(each) for each in zip(spatial[:axes], spatial[axes:], strict=True)]
    laid = patches.transpose(0, *pairs, 1 + 2 * axes).reshape(count, *whole, channels)
    befores = [window.zeros[0] for window in windows]
    cut = [
        (-before, before + output - size, 0)
        for before, output, size in zip(befores, outputs, whole, strict=True)
    ]
    return jax.lax.pad(laid, laid.dtype.type(0), [(0, 0, 0), *cut, (0, 0, 0)])
