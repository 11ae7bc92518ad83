"""Convolutions in forms that XLA runs fast on a CPU.

Its own grouped convolution there goes through a scalar loop: tens of times slower than these, and
its gradient more still; so does the gradient of a transposed one's kernel. That of many features
at few pixels copies its kernel, for the input's gradient transposed, which takes longer than the
convolution. One to few features gathers a pixel's window for only a few products, and takes twice
as long as when neighbouring pixels are computed as one; so does the gradient of an image under the
large strided windows of a first layer, which takes up to thirty times as long. `cnn_jax.ops.conv`
and `conv_transpose` take these forms on that platform alone.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.ops.geometry import Window
from cnn_jax.ops.looped_convolution import conv_with_gradients
from cnn_jax.ops.plain_convolution import convolve
from cnn_jax.ops.shifts import pad, tiled, under_tap

# Channels of the dense convolutions that groups are merged into.
BLOCK = 32

# Every tap of a depthwise kernel, or of a product's, is an instruction of the program: beyond
# these, the one is merged, too, and the other is a convolution.
MOST_TAPS = 64

# Channels, on either side, up to which neighbouring pixels are computed as one, the features that
# these may come to, and the neighbours at most. It pays where there are many pixels.
THIN = 16
WIDE = 32
NEIGHBOURS = 4
MANY_PIXELS = 4096

# Channels of an image, the values of a block of it that are computed as one pixel, and the taps up
# to which a block's window would see too much that its pixels do not depend on.
IMAGE_CHANNELS = 4
BLOCK_VALUES = 48
SMALL_TAPS = 9


def is_thin(x: Array, kernel: Array, windows: Sequence[Window]) -> bool:
    """Whether `thin` computes this convolution, and faster."""
    dense = all(window.stride == window.dilation == 1 for window in windows)
    many = math.prod(x.shape[:-1]) >= MANY_PIXELS and windows[-1].size > 1
    return dense and many and min(kernel.shape[-2:]) <= THIN


def is_of_images(x: Array, kernel: Array, windows: Sequence[Window]) -> bool:
    """Whether `of_images` computes this convolution, and the images' gradient faster."""
    *sizes, channels, _ = kernel.shape
    strided = any(window.stride > 1 for window in windows)
    plain = all(window.dilation == 1 for window in windows)
    many = math.prod(x.shape[:-1]) >= MANY_PIXELS and math.prod(sizes) > SMALL_TAPS
    return strided and plain and many and channels <= IMAGE_CHANNELS


@partial(jax.jit, static_argnames=("windows", "outputs"))  # traced once for equal shapes
def product(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c features"],
    windows: tuple[Window, ...],
    outputs: tuple[int, ...],
) -> Float[Array, "n *outputs features"]:
    """Convolve as one product: all that an output pixel sees, in a row, times the kernel."""
    windows = [Window(1), *windows, Window(1)]
    shape = (x.shape[0], *outputs, x.shape[-1])
    padded = pad(x, windows, 0)
    seen = [under_tap(padded, taps, windows, shape) for taps in _taps(windows)]
    rows = jnp.concatenate(seen, axis=-1).reshape(-1, len(seen) * x.shape[-1])
    return (rows @ kernel.reshape(-1, kernel.shape[-1])).reshape(*shape[:-1], -1)


@partial(jax.jit, static_argnames=("windows", "outputs"))
def depthwise(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes 1 features"],
    windows: tuple[Window, ...],
    outputs: tuple[int, ...],
) -> Float[Array, "n *outputs features"]:
    """Convolve each channel with kernels of its own: a sum of shifted inputs times a tap's row."""
    x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    rows = kernel.reshape(-1, kernel.shape[-1])
    return _depthwise(x, rows, windows, outputs)


@partial(jax.jit, static_argnames=("windows", "groups", "looped"))
def grouped(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c_over_groups features"],
    windows: tuple[Window, ...],
    groups: int,
    looped: bool = False,
) -> Float[Array, "n *outputs features"]:
    """Convolve by groups as a few dense convolutions, whose kernels are zero between groups.

    Args:
      looped: whether this is the body of a loop, see `looped_convolution`.
    """
    *sizes, channels, features = kernel.shape
    merged = math.gcd(groups, max(1, BLOCK // channels))
    # [*sizes, c / groups, blocks, merged, features / groups], then a diagonal of the merged ones
    split = kernel.reshape(*sizes, channels, groups // merged, merged, features // groups)
    diagonal = jnp.eye(merged, dtype=kernel.dtype)
    blocks = jnp.einsum("...cbmf,mk->b...kcmf", split, diagonal)
    blocks = blocks.reshape(
        groups // merged, *sizes, merged * channels, merged * features // groups
    )
    conv = partial(conv_with_gradients if looped else convolve, windows=windows)
    parts = jnp.split(x, groups // merged, axis=-1)
    return jnp.concatenate([conv(*each) for each in zip(parts, blocks, strict=True)], axis=-1)


@jax.jit
def side_by_side(
    x: Float[Array, "n *spatial features"], kernel: Float[Array, "*sizes c features"]
) -> Float[Array, "n *outputs c"]:
    """Convolve, transposed, with strides of the kernel's sizes: pixels make patches, which tile."""
    *sizes, channels, features = kernel.shape
    patches = x.reshape(-1, features) @ kernel.reshape(-1, features).T
    patches = patches.reshape(*x.shape[:-1], *sizes, channels)
    outputs = [size * pixels for size, pixels in zip(sizes, x.shape[1:-1], strict=True)]
    return tiled(patches, [Window(1)] * len(sizes), outputs)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def of_images(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c features"],
    windows: tuple[Window, ...],
) -> Float[Array, "n *outputs features"]:
    """Convolve images by strides; their gradient computes blocks of pixels as one."""
    return convolve(x, kernel, windows)


@partial(of_images.defjvp, symbolic_zeros=True)
def _of_images_jvp(windows, primals, tangents):
    x, kernel = primals
    out = of_images(x, kernel, windows)

    def of_x(x_dot):
        spatial = x.shape[1:-1]
        pull_back = partial(_image_gradient, kernel=kernel, windows=windows, spatial=spatial)
        return jax.linear_transpose(pull_back, out)(x_dot)[0]

    return out, _tangent(out, tangents, (of_x, lambda dot: of_images(x, dot, windows)))


@partial(jax.jit, static_argnames=("windows", "spatial"))
def _image_gradient(g, kernel, windows, spatial):
    """Return dL/dx for g = dL/dout, blocks of x as pixels of many features.

    A block is `several` strides long on each axis; its pixel b, counted in the padded image, meets
    under g[i] the tap b - stride * i of the kernel, where it has one.
    """
    axes, channels = len(windows), kernel.shape[-2]
    values = channels * math.prod(window.stride for window in windows)
    several = max(1, math.floor((BLOCK_VALUES / values) ** (1 / axes) + 1e-6))
    kernel = jnp.pad(kernel, [*[(0, 1)] * axes, (0, 0), (0, 0)])  # where it has none
    pairs = []
    for axis, (window, size, given) in enumerate(zip(windows, spatial, g.shape[1:-1], strict=True)):
        before = (window.size - 1) // window.stride
        places = np.arange(-before, several)[:, None]
        taps = np.arange(several * window.stride) - window.stride * places
        taps = np.where((taps >= 0) & (taps < window.size), taps, window.size)
        kernel = jnp.take(kernel, taps, axis=2 * axis)
        blocks = -(-(window.zeros[0] + size) // (several * window.stride))
        pairs.append((before, several * blocks - given))
    # [places, block, places, block, ..., c, features] -> [*places, features, *block, c]
    inner = range(1, 2 * axes, 2)
    kernel = kernel.transpose(*range(0, 2 * axes, 2), 2 * axes + 1, *inner, 2 * axes)
    block = kernel.shape[axes + 1 :]
    kernel = kernel.reshape(*kernel.shape[: axes + 1], -1)
    found = _convolve(g, kernel, pairs, [several] * axes)
    return tiled(found.reshape(*found.shape[:-1], *block), windows, spatial)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def thin(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*sizes c features"],
    pairs: tuple[tuple[int, int], ...],
) -> Float[Array, "n *outputs features"]:
    """Convolve few channels, or to few: neighbours are computed as one pixel of more features.

    Args:
      pairs: zeros before and after each axis.
    """
    return _neighbours_as_one(x, kernel, pairs)


@partial(thin.defjvp, symbolic_zeros=True)
def _thin_jvp(pairs, primals, tangents):
    x, kernel = primals
    out = thin(x, kernel, pairs)

    def of_x(x_dot):
        # the transpose of a convolution whose neighbours are one, for the sake of its own transpose
        back = jnp.flip(kernel, range(len(pairs))).swapaxes(-1, -2)
        rests = tuple(
            (size - 1 - before, size - 1 - after)
            for size, (before, after) in zip(kernel.shape, pairs, strict=False)
        )
        pull_back = partial(_neighbours_as_one, kernel=back, pairs=rests)
        return jax.linear_transpose(pull_back, out)(x_dot)[0]

    def of_kernel(kernel_dot):
        return _neighbours_as_one(x, kernel_dot, pairs, WIDE // 2)

    return out, _tangent(out, tangents, (of_x, of_kernel))


@partial(jax.jit, static_argnames=("pairs", "wide"))
def _neighbours_as_one(x, kernel, pairs, wide=WIDE):
    """Convolve with a window of several neighbours' windows, which moves on by as many pixels.

    Its kernel is theirs side by side in the features, each with zeros where the others look.
    """
    *sizes, _, features = kernel.shape
    count = max(1, min(NEIGHBOURS, wide // features))
    *outputs, row = (
        pixels + sum(pair) - size + 1
        for pixels, pair, size in zip(x.shape[1:-1], pairs, sizes, strict=True)
    )
    missing = -row % count
    around = [(0, 0)] * (len(sizes) - 1)
    kernels = [
        jnp.pad(kernel, [*around, (place, count - 1 - place), (0, 0), (0, 0)])
        for place in range(count)
    ]
    *others, (before, after) = pairs
    pairs = (*others, (before, after + missing))
    strides = (*(1 for _ in others), count)
    out = _convolve(x, jnp.concatenate(kernels, axis=-1), pairs, strides)
    out = out.reshape(x.shape[0], *outputs, row + missing, features)
    return out[..., :row, :]


def _convolve(x, kernel, pairs, strides):
    spatial = "HWD"[: len(pairs)]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return jax.lax.conv_general_dilated(x, kernel, strides, pairs, dimension_numbers=numbers)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _depthwise(x, rows, windows, outputs):
    """Convolve x [n, *spatial, c] by rows [taps, c]."""
    return _sum_of_taps(x, rows, windows, outputs)


def _sum_of_taps(x, rows, windows, outputs):
    windows = [Window(1), *windows, Window(1)]
    outputs = (x.shape[0], *outputs, x.shape[-1])
    padded = pad(x, windows, 0)
    products = (
        under_tap(padded, taps, windows, outputs) * row
        for taps, row in zip(_taps(windows), rows, strict=True)
    )
    return functools.reduce(jnp.add, products)


def _depthwise_input_gradient(g, rows, windows, spatial):
    """Return dL/dx for g = dL/dout, as convolutions of g.

    Pixels that lie a stride apart are under the same taps: each such phase is a convolution, and
    the phases are laid side by side. What transposing the sum of taps gives, a padded g a tap, XLA
    computes tap by tap from wherever g comes from.
    """
    kernel = rows.reshape(*(window.size for window in windows), -1)
    strides = [window.stride for window in windows]
    blocks = [-(-size // stride) for size, stride in zip(spatial, strides, strict=True)]
    phases = []
    for phase in itertools.product(*map(range, strides)):
        met, of_phase = kernel, []
        for axis, (window, place, count) in enumerate(zip(windows, phase, blocks, strict=True)):
            # where g[q - back / stride] is under the tap in block q
            backs = [tap * window.dilation - window.zeros[0] - place for tap in range(window.size)]
            taps = [tap for tap, back in enumerate(backs) if back % window.stride == 0]
            met = jnp.take(met, np.array(taps[::-1], int), axis=axis)
            dilation = window.dilation // math.gcd(window.dilation, window.stride)
            before = backs[taps[-1]] // window.stride if taps else 0
            after = count + (len(taps) - 1) * dilation - before - g.shape[1 + axis]
            of_phase.append(Window(len(taps), 1, (before, after), dilation))
        if met.size:
            phases.append(_sum_of_taps(g, met.reshape(-1, met.shape[-1]), of_phase, blocks))
        else:  # no tap ever sees these pixels
            phases.append(jnp.zeros((len(g), *blocks, g.shape[-1]), g.dtype))
    patches = jnp.stack(phases, axis=-2).reshape(len(g), *blocks, *strides, -1)
    return tiled(patches, [Window(1)] * len(windows), spatial)


def _depthwise_of_rows(x, rows, windows, outputs):
    """Return the same, row by row of the output, for the sake of its transpose.

    That is the kernel's gradient: each output row adds its products to [taps, *outputs[1:], c],
    which stays in the cache, and they are summed over the positions at the end.
    """
    first, *others = windows
    padded = pad(x, [Window(1), *windows, Window(1)], 0)
    rows = jnp.expand_dims(rows, range(1, len(outputs)))
    rows = jnp.broadcast_to(rows, (rows.shape[0], *outputs[1:], rows.shape[-1]))
    within = [Window(1), Window(first.size, dilation=first.dilation), *others, Window(1)]

    @partial(jax.checkpoint, prevent_cse=False)  # or all that the taps met would be kept
    def output_row(_, index):
        example, line = index // outputs[0], index % outputs[0]
        start = (example, line * first.stride, *(0 for _ in others), 0)
        strip = jax.lax.dynamic_slice(padded, start, (1, first.extent, *padded.shape[2:]))
        shape = (1, 1, *outputs[1:], x.shape[-1])
        met = [under_tap(strip, taps, within, shape)[0, 0] for taps in _taps(within)]
        return None, (jnp.stack(met) * rows).sum(0)

    lines = jnp.arange(x.shape[0] * outputs[0])
    return jax.lax.scan(output_row, None, lines)[1].reshape(x.shape[0], *outputs, -1)


@partial(_depthwise.defjvp, symbolic_zeros=True)
def _depthwise_jvp(windows, outputs, primals, tangents):
    x, rows = primals
    out = _depthwise(x, rows, windows, outputs)

    def of_x(x_dot):
        spatial = x.shape[1:-1]
        pull_back = partial(_depthwise_input_gradient, rows=rows, windows=windows, spatial=spatial)
        return jax.linear_transpose(pull_back, out)(x_dot)[0]

    def of_rows(rows_dot):
        return _depthwise_of_rows(x, rows_dot, windows, outputs)

    return out, _tangent(out, tangents, (of_x, of_rows))


def _tangent(out, tangents, maps):
    """Return the tangent of an operation's output: the sum of linear maps of its operands'."""
    out_dot = jnp.zeros_like(out)
    for tangent, of_operand in zip(tangents, maps, strict=True):
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero):
            out_dot += of_operand(tangent)
    return out_dot


def _taps(windows: Sequence[Window]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(window.size) for window in windows))
