"""Locally connected and tiled convolution: sparse connections without, or with some, sharing."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UsageError
from cnn_jax.ops.convolution import conv
from cnn_jax.ops.geometry import Padding, Window, output_size, padding_pairs, per_axis
from cnn_jax.ops.shifts import pad, under_tap


def local_conv(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*outputs_and_sizes c features"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
) -> Float[Array, "n *outputs features"]:
    """Cross-correlate with a kernel of its own at every position (unshared convolution).

    out[n, i, f] = sum over m, c of x[n, stride * i + dilation * m - before, c] kernel[i, m, c, f].
    LeCun 1989; Goodfellow, Bengio & Courville 2016, equation 9.9.

    Raises:
      UsageError: the kernel's leading axes are not the output's positions.
    """
    axes = x.ndim - 2
    sizes = kernel.shape[axes : 2 * axes]
    strides, dilations = per_axis(stride, axes), per_axis(dilation, axes)
    pairs = padding_pairs(padding, sizes, dilations)
    outputs = _outputs(x, sizes, strides, pairs, dilations)
    if kernel.shape[:axes] != outputs:
        raise UsageError(
            f"the kernel has one filter for each of {kernel.shape[:axes]} positions, but there "
            f"are {outputs}"
        )
    windows = [Window(1), *map(Window, sizes, strides, pairs, dilations), Window(1)]
    x = pad(x, windows, 0)
    total = jnp.zeros((), x.dtype)
    for taps in itertools.product(*map(range, sizes)):
        met = under_tap(x, (0, *taps, 0), windows, (x.shape[0], *outputs, x.shape[-1]))
        weights = kernel[(slice(None),) * axes + taps]
        total = total + jnp.einsum("n...c,...cf->n...f", met, weights)
    return total


def tiled_conv(
    x: Float[Array, "n *spatial c"],
    kernels: Float[Array, "*tiles_and_sizes c_over_groups features"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "n *outputs features"]:
    """Cross-correlate with kernels taken in turn: output i uses kernel i mod tiles, on each axis.

    One tile is conv, as many as there are outputs is local_conv; neighbours are unshared and yet
    the memory does not grow with the input. Le et al. 2010; Goodfellow, Bengio & Courville 2016,
    equation 9.10.
    """
    axes = x.ndim - 2
    tiles, sizes = kernels.shape[:axes], kernels.shape[axes : 2 * axes]
    strides, dilations = per_axis(stride, axes), per_axis(dilation, axes)
    pairs = padding_pairs(padding, sizes, dilations)
    outputs = _outputs(x, sizes, strides, pairs, dilations)
    result = jnp.zeros((x.shape[0], *outputs, kernels.shape[-1]), x.dtype)
    for tile in itertools.product(*map(range, map(min, tiles, outputs))):
        part = conv(
            x,
            kernels[tile],
            stride=[step * count for step, count in zip(strides, tiles, strict=True)],
            # kernel t first stands t strides further on
            padding=[
                (a - step * t, b) for step, t, (a, b) in zip(strides, tile, pairs, strict=True)
            ],
            dilation=dilations,
            groups=groups,
        )
        places = [slice(t, None, count) for t, count in zip(tile, tiles, strict=True)]
        result = result.at[(slice(None), *places)].set(part)
    return result


def _outputs(x, sizes, strides, pairs, dilations):
    """Return the number of positions along each axis."""
    return tuple(
        output_size(size, Window(*window))
        for size, *window in zip(x.shape[1:-1], sizes, strides, pairs, dilations, strict=True)
    )
