"""Convolution of images and other grids by learned kernels, channels last."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.ops import cpu_convolution
from cnn_jax.ops.geometry import Padding, Window, output_size, padding_pairs, per_axis
from cnn_jax.ops.looped_convolution import conv_with_gradients, is_inside_loop
from cnn_jax.ops.plain_convolution import convolve
from cnn_jax.ops.portable import is_portable


def conv(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c_over_groups features"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "same",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "n *outputs features"]:
    """Cross-correlate x with a kernel, as "convolution" means in neural networks.

    out[n, i, f] = sum over m, c of x[n, stride * i + dilation * m - before, c] kernel[m, c, f]
    for one, two or three spatial axes; with groups, output features of group g see the input
    channels of group g alone. Each output axis has (N + before + after - span - 1) // stride + 1
    entries, where span = dilation * (size - 1).

    Raises:
      UsageError: the kernel does not fit x.
    """
    axes = x.ndim - 2
    strides, dilations = per_axis(stride, axes), per_axis(dilation, axes)
    pairs = padding_pairs(padding, kernel.shape[:axes], dilations)
    windows = tuple(
        Window(*each) for each in zip(kernel.shape[:axes], strides, pairs, dilations, strict=True)
    )
    outputs = tuple(map(output_size, x.shape[1:-1], windows))
    plain = partial(convolve, windows=windows, groups=groups)
    if is_portable():
        return plain(x, kernel)
    few_taps = math.prod(kernel.shape[:axes]) <= cpu_convolution.MOST_TAPS
    if groups == 1:
        pixels = x.shape[0] * math.prod(outputs)
        if is_inside_loop():
            on_cpu = partial(conv_with_gradients, windows=windows)
        elif pixels <= kernel.shape[-1] and few_taps:
            on_cpu = partial(cpu_convolution.product, windows=windows, outputs=outputs)
        elif cpu_convolution.is_thin(x, kernel, windows):
            on_cpu = partial(cpu_convolution.thin, pairs=tuple(pairs))
        elif cpu_convolution.is_of_images(x, kernel, windows):
            on_cpu = partial(cpu_convolution.of_images, windows=windows)
        else:
            return plain(x, kernel)
    elif groups == x.shape[-1] and few_taps:
        on_cpu = partial(cpu_convolution.depthwise, windows=windows, outputs=outputs)
    else:
        settings = {"windows": windows, "groups": groups, "looped": is_inside_loop()}
        on_cpu = partial(cpu_convolution.grouped, **settings)
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def flip(kernel: Float[Array, "*sizes c features"]) -> Float[Array, "*sizes c features"]:
    """Reverse the kernel along its spatial axes."""
    return jnp.flip(kernel, tuple(range(kernel.ndim - 2)))


def true_conv(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c_over_groups features"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "full",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "n *outputs features"]:
    """Convolve as mathematics defines it: conv with the kernel flipped.

    With full padding out[n, i, f] = sum over m, c of x[n, i - m, c] kernel[m, c, f], which is
    commutative in x and kernel for one channel; other settings are those of conv.
    """
    return conv(x, flip(kernel), stride=stride, padding=padding, dilation=dilation, groups=groups)
