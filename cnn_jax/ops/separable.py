"""Depthwise and depthwise-separable convolution."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from cnn_jax.ops.convolution import conv
from cnn_jax.ops.geometry import Padding


def depthwise_conv(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes 1 c_times_multiplier"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "same",
    dilation: int | Sequence[int] = 1,
) -> Float[Array, "n *outputs c_times_multiplier"]:
    """Cross-correlate each channel with kernels of its own; channel c gives the features
    c * multiplier to (c + 1) * multiplier - 1. The kernel's shape is conv's with c groups.
    """
    return conv(x, kernel, stride=stride, padding=padding, dilation=dilation, groups=x.shape[-1])


def separable_conv(
    x: Float[Array, "n *spatial c"],
    depthwise: Float[Array, "*sizes 1 c_times_multiplier"],
    pointwise: Float[Array, "*ones c_times_multiplier features"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "same",
    dilation: int | Sequence[int] = 1,
) -> Float[Array, "n *outputs features"]:
    """Convolve over space channel by channel, then over channels pixel by pixel.

    Equal to the dense convolution whose kernel is depthwise[m, c] pointwise[c, f] (for one kernel
    a channel), at F^2 + f instead of F^2 f multiplications an input value. Howard et al. 2017,
    section 3.1.
    """
    x = depthwise_conv(x, depthwise, stride=stride, padding=padding, dilation=dilation)
    return conv(x, pointwise, padding="valid")
