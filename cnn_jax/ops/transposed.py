"""Transposed convolution: the linear map of a convolution, run backwards."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.errors import UsageError
from cnn_jax.ops import cpu_convolution
from cnn_jax.ops.convolution import flip
from cnn_jax.ops.geometry import Padding, padding_pairs, per_axis
from cnn_jax.ops.portable import by_platform


def transpose_kernel(
    kernel: Float[Array, "*sizes c_over_groups features"], groups: int = 1
) -> Float[Array, "*sizes features_over_groups c"]:
    """Exchange a kernel's inputs and outputs, group by group."""
    *sizes, inputs, features = kernel.shape
    split = kernel.reshape(*sizes, inputs, groups, features // groups)
    return jnp.swapaxes(split, -1, -3).reshape(*sizes, features // groups, groups * inputs)


def conv_transpose(
    x: Float[Array, "n *spatial features"],
    kernel: Float[Array, "*sizes c_over_groups features"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "n *outputs c"]:
    """Apply the transpose of conv with these settings and this kernel (features -> c channels).

    out[n, p, c] = sum over i, m, f with stride * i + dilation * m - before = p
                   of x[n, i, f] kernel[m, c, f]:
    a full convolution of x, `stride - 1` zeros between its pixels, with the flipped kernel.
    Each output axis has stride (N - 1) + span + 1 - before - after + output_padding entries; the
    output padding (below the stride) chooses among the sizes that conv rounds to the same one.
    The kernel is laid out as conv's, so PyTorch's ConvTranspose weights map as its Conv weights do.
    Zeiler et al. 2010; Dumoulin & Visin 2016, section 4.

    Raises:
      UsageError: nothing is left after the padding is cropped.
    """
    axes = x.ndim - 2
    sizes = kernel.shape[:axes]
    strides, dilations = per_axis(stride, axes), per_axis(dilation, axes)
    spans = [(size - 1) * step for size, step in zip(sizes, dilations, strict=True)]
    crops = padding_pairs(padding, sizes, dilations)
    pairs = [
        (span - before, span - after + extra)
        for span, (before, after), extra in zip(
            spans, crops, per_axis(output_padding, axes), strict=True
        )
    ]
    for size, step, pair, span in zip(x.shape[1:-1], strides, pairs, spans, strict=True):
        if (size - 1) * step + 1 + sum(pair) - span < 1:
            raise UsageError(
                f"padding {padding!r} crops all that the transposed convolution makes of {size} "
                "pixels; use less padding or a larger input"
            )
    spatial = "HWD"[:axes]
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(1,) * axes,
        padding=pairs,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )

    def default(x, kernel):
        return convolve(x, transpose_kernel(flip(kernel), groups))

    whole = pairs == [(span, span) for span in spans]
    if whole and sizes == strides and groups == max(dilations) == 1:
        on_cpu = cpu_convolution.side_by_side
        return by_platform(x, kernel, cpu=on_cpu, default=default)
    return default(x, kernel)
