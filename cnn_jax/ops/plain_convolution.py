"""A convolution as XLA's own operation, in the layout of this project."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from cnn_jax.ops.geometry import Window


def convolve(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c_over_groups features"],
    windows: Sequence[Window],
    groups: int = 1,
) -> Float[Array, "n *outputs features"]:
    """Convolve under a window on each axis, see `cnn_jax.ops.conv`."""
    spatial = "HWD"[: len(windows)]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=[window.stride for window in windows],
        padding=[window.zeros for window in windows],
        rhs_dilation=[window.dilation for window in windows],
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )
