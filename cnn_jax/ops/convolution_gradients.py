"""The gradients of a convolution in closed form: two convolutions again."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from cnn_jax.ops.convolution import conv
from cnn_jax.ops.geometry import Padding, padding_pairs, per_axis
from cnn_jax.ops.transposed import conv_transpose


def conv_filter_gradient(
    x: Float[Array, "n *spatial c"],
    g: Float[Array, "n *outputs features"],
    sizes: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "same",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "*sizes c_over_groups features"]:
    """Return dL/dkernel of conv(x, kernel) with these settings, given g = dL/dout.

    dL/dkernel[m, c, f] = sum over n, i of x[n, stride * i + dilation * m - before, c] g[n, i, f]:
    a convolution of the input with the output gradient. Examples take the place of channels, and
    stride and dilation change places.

    Args:
      sizes: the kernel's spatial sizes.
    """
    axes = x.ndim - 2
    strides, dilations = per_axis(stride, axes), per_axis(dilation, axes)
    pairs = []
    for size, (before, _), taps, outputs, step, spacing in zip(
        x.shape[1:-1],
        padding_pairs(padding, sizes, dilations),
        sizes,
        g.shape[1:-1],
        strides,
        dilations,
        strict=True,
    ):
        # what the stride's remainder left out is cropped, so that exactly `taps` results fit
        reached = spacing * (taps - 1) + step * (outputs - 1) + 1
        pairs.append((before, reached - size - before))
    n, *spatial, c = x.shape
    positions = range(1, 1 + axes)
    # [n, *spatial, groups, c / groups] -> [c / groups, *spatial, groups * n]
    by_channel = x.reshape(n, *spatial, groups, c // groups)
    by_channel = by_channel.transpose(axes + 2, *positions, axes + 1, 0)
    by_channel = by_channel.reshape(c // groups, *spatial, groups * n)
    slopes = g.transpose(*positions, 0, axes + 1)
    gradient = conv(
        by_channel, slopes, stride=dilations, padding=pairs, dilation=strides, groups=groups
    )
    return gradient.transpose(*positions, 0, axes + 1)


def conv_input_gradient(
    g: Float[Array, "n *outputs features"],
    kernel: Float[Array, "*sizes c_over_groups features"],
    spatial: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "same",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "n *spatial c"]:
    """Return dL/dx of conv(x, kernel) with these settings, given g = dL/dout.

    dL/dx[n, p, c] = sum over i, m, f with stride * i + dilation * m - before = p
                     of g[n, i, f] kernel[m, c, f]:
    a full convolution of the output gradient with the flipped filter (see conv_transpose).

    Args:
      spatial: x's spatial sizes, which the stride's rounding hides from g.
    """
    axes = g.ndim - 2
    strides, dilations = per_axis(stride, axes), per_axis(dilation, axes)
    pairs = padding_pairs(padding, kernel.shape[:axes], dilations)
    # pixels at the end that no window reached: their gradient is zero
    unused = [
        size + before + after - (taps - 1) * spacing - 1 - (outputs - 1) * step
        for size, (before, after), taps, spacing, outputs, step in zip(
            spatial, pairs, kernel.shape[:axes], dilations, g.shape[1:-1], strides, strict=True
        )
    ]
    return conv_transpose(
        g,
        kernel,
        stride=strides,
        padding=pairs,
        output_padding=unused,
        dilation=dilations,
        groups=groups,
    )
