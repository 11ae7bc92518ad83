"""DeepDream: an image changed so that a layer sees more of what it sees in it already.

The gradient at the layer is its activation, dL/dh = h, or what a guide image shows there; steps are
made from small to large copies of the image (octaves), each rolled at random. Mordvintsev, Olah &
Tyka 2015, "Inceptionism", and their notebook, whose constants these are. A large image is worked on
in tiles whose gradients add up to exactly that of the whole.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from cnn_jax.errors import UsageError
from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import Progress, Watch, repeat
from cnn_jax.visualize import batching, image_transforms

Activations = Array | Mapping[str, Array]
F = Callable[[Float[Array, "n h w c"]], Activations]
Objective = Callable[[Activations], Activations]  # to a value at each place, [n, h', w'] a layer


class Tiles(NamedTuple):
    """How a gradient is cut: `size` pixels of the image at a time.

    reach: how far from its place a unit sees at most, in pixels; its receptive field is enough.
    """

    size: int
    reach: int


def tiles_within(
    f: F, images: Float[Array, "n h w c"] | jax.ShapeDtypeStruct, reach: int, memory_limit: float
) -> Tiles | None:
    """Return the largest tiles whose gradient fits into the memory; None: the whole image does.

    Args:
      images: or a jax.ShapeDtypeStruct.
      reach: as in Tiles.
      memory_limit: bytes; all values count, as if none were freed before the end.

    Raises:
      UsageError: none are small enough.
    """
    n, h, w, c = images.shape
    step = batching.gradient_of_sum(f)

    def fits(height: int, width: int) -> bool:
        window = jax.ShapeDtypeStruct((n, height, width, c), images.dtype)
        return batching.values_bytes(step, window) <= memory_limit

    if fits(h, w):
        return None
    for size in (2048, 1024, 512, 256, 128, 64):
        window = size + 2 * reach
        if window < max(h, w) and fits(min(window, h), min(window, w)):
            return Tiles(size, reach)
    raise UsageError(
        f"no tile of these {w}x{h} pixels fits into {memory_limit / 2**20:.0f} MiB where a unit "
        f"sees {reach} around it; raise the memory limit, or take an earlier layer or less pixels"
    )


def energy(weights: Mapping[str, float] | None = None) -> Objective:
    """Return half the squares at each place: the gradient is the activation.

    Args:
      weights: of each layer of a mixture; by default all are 1.
    """
    return Partial(_energy, weights)


def _energy(weights, activations):
    def squares(activation, weight=1.0):
        return weight * jnp.sum(activation**2, axis=-1) / 2

    if isinstance(activations, Mapping):
        weights = weights or dict.fromkeys(activations, 1.0)
        return {path: squares(activations[path], weights[path]) for path in weights}
    return squares(activations)


def guided(guide: Activations) -> Objective:
    """Return at each place the largest dot product with any place of a guide image's activations.

    The gradient is the guide's feature that matches best, as in the notebook.

    Args:
      guide: f of one image, [1, h', w', c]; or a dict of such.
    """
    return Partial(_guided, guide)


def _guided(guide, activations):
    def matches(activation, guide):
        return jnp.max(activation @ guide.reshape(-1, guide.shape[-1]).T, axis=-1)

    if isinstance(activations, Mapping):
        return {path: matches(activations[path], guide[path]) for path in guide}
    return matches(activations, guide)


def gradient(
    f: F,
    objective: Objective,
    images: Float[Array, "n h w c"],
    tiles: Tiles | None = None,
    spacing: tuple[int, ...] | None = None,
    progress: Progress | None = None,
) -> tuple[Float[Array, " n"], Float[Array, "n h w c"]]:
    """Return the objective's sum over all places, and its gradient.

    With tiles, only a window around one tile is in the network at a time. Each unit is counted in
    the one tile that holds its place, and sees there all that it sees in the whole image; so the
    parts add up to the whole gradient, seams included. What has no place, such as a global
    average, has a reach of the whole image and leaves nothing to cut.

    Args:
      spacing: pixels between neighbouring units of each activation; by default found by tracing f.

    Raises:
      UsageError: activations without height and width.
    """
    f, objective = as_partial(f), as_partial(objective)
    h, w = images.shape[1:3]
    if tiles is None:
        tiles = Tiles(max(h, w), 0)
    if spacing is None:
        spacing = _spacing(f, images)
    rows, columns = (_cut(side, tiles, max(spacing)) for side in (h, w))
    places = [(*row, *column) for row in rows.parts for column in columns.parts]
    step = _tile_adder(rows.window, columns.window, spacing)
    state = (jnp.zeros(len(images), images.dtype), jnp.zeros_like(images))
    places = jnp.array(places, jnp.int32)
    return repeat(step, state, len(places), f, objective, images, places, progress=progress)


class _Cut(NamedTuple):
    """Along one axis: the window's size, and of each tile (the window's start, its own bounds)."""

    window: int
    parts: list[tuple[int, int, int]]


def _cut(side: int, tiles: Tiles, stride: int) -> _Cut:
    size, reach = (-(-length // stride) * stride for length in tiles)
    window = size + 2 * reach
    window += (side - window) % stride  # a window at the far edge ends and is padded as the image
    if window >= side:
        return _Cut(side, [(0, 0, side)])
    starts = range(0, side, size)
    return _Cut(
        window,
        [(min(max(s - reach, 0), side - window), s, min(s + size, side)) for s in starts],
    )


@functools.lru_cache(maxsize=16)
def _tile_adder(height: int, width: int, spacing: tuple[int, ...]) -> Callable:
    """Return the step that adds one tile's value and gradient, through windows of this size."""

    def step(i, state, f, objective, images, places):
        top, row, row_end, left, column, column_end = places[i]
        corner = (jnp.zeros_like(top), top, left, jnp.zeros_like(top))
        window = jax.lax.dynamic_slice(
            images, corner, (len(images), height, width, images.shape[3])
        )

        def value(window):
            total = 0.0
            for at, pixels in zip(jax.tree.leaves(objective(f(window))), spacing, strict=True):
                y = top + jnp.arange(at.shape[1]) * pixels
                x = left + jnp.arange(at.shape[2]) * pixels
                own = ((y >= row) & (y < row_end))[:, None] & ((x >= column) & (x < column_end))
                total = total + jnp.sum(jnp.where(own, at, 0), axis=(1, 2))
            return total.sum(), total

        part, values = jax.grad(value, has_aux=True)(window)
        before = jax.lax.dynamic_slice(state[1], corner, window.shape)
        return state[0] + values, jax.lax.dynamic_update_slice(state[1], before + part, corner)

    return step


def _spacing(f: F, images: Float[Array, "n h w c"]) -> tuple[int, ...]:
    """Return the pixels between neighbouring units of each activation."""
    pixels = (1024, 2048)  # what 1024 pixels more bring is free of the borders' effects
    units = []
    for side in pixels:
        shape = jax.ShapeDtypeStruct((1, side, side, images.shape[3]), images.dtype)
        leaves = jax.tree.leaves(jax.eval_shape(f, shape))
        for leaf in leaves:
            if leaf.ndim != 4:
                raise UsageError(
                    f"this layer's activation is {leaf.shape[1:]}, without height and width; "
                    "dream with a convolution, a pooling or a block of them"
                )
        units.append([leaf.shape[1] for leaf in leaves])
    small, large = np.array(units)
    return tuple(int(each) for each in np.round((pixels[1] - pixels[0]) / (large - small)))


def dream(
    f: F,
    images: Float[Array, "n h w c"],
    key: Array,
    *,
    objective: Objective | None = None,
    octaves: int = 4,
    octave_scale: float = 1.4,
    iterations: int = 10,
    step_size: float = 1.5 / 255,
    jitter: int = 32,
    tiles: Tiles | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Float[Array, "n h w c"]:
    """Return the images as the layer dreams them.

    Args:
      f: images in 0..1 of any size -> an activation with height and width, or a dict of several.
      objective: `energy(...)`, by default of weights 1, or `guided(...)`.
      octaves, octave_scale: how many sizes, each so many times smaller than the next.
      step_size: of a step, as a share of the range 0..1, where |gradient| is at its mean.
      jitter: images are rolled by up to so many pixels before each step, and back.
      watch: is shown the images, at their octave's size, after each step; see platform_loop.
    """
    objective = energy() if objective is None else objective
    f, images = as_partial(f), jnp.asarray(images)
    h, w = images.shape[1:3]
    sizes = [
        (max(1, round(h / octave_scale**k)), max(1, round(w / octave_scale**k)))
        for k in reversed(range(octaves))
    ]
    count, spacing = progress or batching.no_progress, _spacing(f, images)
    detail = jnp.zeros((len(images), *sizes[0], images.shape[3]), images.dtype)
    base, dreamt = images, images
    jobs = [(size, i) for size in sizes for i in range(iterations)]
    for k, (size, i) in enumerate(count(jobs, len(jobs))):
        if i == 0:
            base = _resize(images, size)
            dreamt = base + _resize(detail, size)
        shift = jax.random.randint(jax.random.fold_in(key, k), (2,), -jitter, jitter + 1)
        rolled = _roll(dreamt, shift)
        _, slope = gradient(f, objective, rolled, tiles, spacing)
        dreamt = _climb(rolled, slope, shift, step_size)
        if watch is not None:
            watch(k + 1, dreamt)
        if i == iterations - 1:
            detail = dreamt - base
    return dreamt


@jax.jit
def _roll(images, shift):
    return jnp.roll(images, shift, axis=(1, 2))


@jax.jit
def _climb(rolled, slope, shift, step_size):
    mean = jnp.mean(jnp.abs(slope), axis=(1, 2, 3), keepdims=True)
    moved = rolled + step_size * slope / jnp.maximum(mean, 1e-12)
    return jnp.clip(jnp.roll(moved, -shift, axis=(1, 2)), 0, 1)


def _resize(images: Float[Array, "n h w c"], size: tuple[int, int]) -> Float[Array, "n h2 w2 c"]:
    if images.shape[1:3] == size:
        return images
    return jax.image.resize(images, (len(images), *size, images.shape[3]), "linear")


def zoom(
    f: F,
    images: Float[Array, "n h w c"],
    key: Array,
    *,
    frames: int,
    magnification: float = 1.05,
    degrees: float = 0.0,
    **options: Any,
) -> Iterator[Float[Array, "n h w c"]]:
    """Yield the frames of a movie: each is the one before, enlarged, turned and dreamt on.

    Args:
      options: of `dream`.
    """
    images = jnp.asarray(images)
    scale = jnp.full(len(images), magnification, images.dtype)
    turn = jnp.full(len(images), degrees, images.dtype)
    enlarge = jax.jit(image_transforms.affine)
    for i in range(frames):
        images = dream(f, images, jax.random.fold_in(key, i), **options)
        yield images
        images = enlarge(images, scale, turn)
