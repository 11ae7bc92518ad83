"""Convolutions in the body of a loop.

XLA brings a convolution into the form of its CPU kernels only outside of loops. Inside, those of
the gradients go through a scalar loop, twenty times slower. Within `inside_loop()` `conv` has
gradients that are of that form from the beginning.
"""

from contextlib import AbstractContextManager
from functools import partial

import jax
from jaxtyping import Array, Float

from cnn_jax.ops.geometry import Window
from cnn_jax.ops.plain_convolution import convolve
from cnn_jax.ops.portable import portable

# part of the key of every cache of jax.jit: what is traced inside is not reused outside
_inside = jax.make_user_context(False)


def inside_loop() -> AbstractContextManager:
    """Within this context, that of a body, convolutions on a CPU are `conv_with_gradients`."""
    return _inside(True)


def is_inside_loop() -> bool:
    """Whether `inside_loop()` holds."""
    return bool(_inside.value)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def conv_with_gradients(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c features"],
    windows: tuple[Window, ...],
) -> Float[Array, "n *outputs features"]:
    """`convolve`, whose gradients are those of `convolution_gradients`: convolutions again."""
    return convolve(x, kernel, windows)


@conv_with_gradients.defjvp
def _conv_jvp(windows, primals, tangents):
    from cnn_jax.ops import convolution_gradients  # which is made of conv

    x, kernel = primals
    x_dot, kernel_dot = tangents
    settings = {
        "stride": [window.stride for window in windows],
        "padding": [window.zeros for window in windows],
        "dilation": [window.dilation for window in windows],
    }
    out = conv_with_gradients(x, kernel, windows)
    # each gradient's transpose, for the sake of that one's own transpose
    by_input = partial(
        convolution_gradients.conv_input_gradient,
        kernel=kernel, spatial=x.shape[1:-1], **settings,
    )  # fmt: skip
    by_filter = partial(
        convolution_gradients.conv_filter_gradient, x, sizes=kernel.shape[:-2], **settings
    )
    with portable():  # other forms would come back from two transpositions as something else
        (of_x,) = jax.linear_transpose(by_input, out)(x_dot)
        (of_kernel,) = jax.linear_transpose(by_filter, out)(kernel_dot)
    return out, of_x + of_kernel
