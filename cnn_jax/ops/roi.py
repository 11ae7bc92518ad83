"""Regions of a feature map, of any size and place, as arrays of one size.

Bilinear interpolation is separable, so a region's rows and columns are two small matrices and
RoIAlign is two products with them: nothing of the size of regions x samples x channels is made.
All functions are of one image; vmap makes them of a batch.

XLA may divide by a number by multiplying by its rounded reciprocal, after which floor and ceil are
off by one where the quotient is whole. So they are only taken as a // b, whose remainder is exact,
and limits are compared without a division.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def _interpolation(positions: Float[Array, "*n"], size: int) -> Float[Array, "*n size"]:
    """Return the weights of `size` pixels at these positions, held to the first and last pixel."""
    distance = jnp.clip(positions, 0, size - 1)[..., None] - jnp.arange(size)
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _bin_weights(
    start: Float[Array, " k"],
    length: Float[Array, " k"],
    outputs: int,
    size: int,
    sampling_ratio: int | None,
) -> Float[Array, "k outputs size"]:
    """Return the weight of each pixel of an axis in each bin: the mean over the bin's samples."""
    samples = math.ceil(size / outputs) if sampling_ratio is None else sampling_ratio
    drawn = jnp.full_like(length, samples)
    if sampling_ratio is None:
        drawn = jnp.clip(-(-length // outputs), 0, samples)
    start, length = start[:, None], length[:, None]
    count = jnp.maximum(drawn, 1)[:, None]
    parts = 2 * outputs * count  # of the length; a sample lies after an odd number of them
    weights = 0.0
    for i in range(samples):
        covered = length * (2 * (jnp.arange(outputs) * count + i) + 1)
        counted = ((start + 1) * parts + covered >= 0) & ((start - size) * parts + covered <= 0)
        counted &= i < drawn[:, None]
        y = start + covered / parts
        weights += jnp.where(counted[..., None], _interpolation(y, size), 0)
    return weights / count[..., None]


def _align_weights(boxes, outputs, sizes, scale, sampling_ratio, aligned):
    """Return the rows' and the columns' weights, [k, outputs, h] and [k, outputs, w]."""
    x1, y1, x2, y2 = jnp.moveaxis(boxes * scale - (0.5 if aligned else 0), -1, 0)
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = jnp.maximum(height, 1), jnp.maximum(width, 1)
    return (
        _bin_weights(y1, height, outputs, sizes[0], sampling_ratio),
        _bin_weights(x1, width, outputs, sizes[1], sampling_ratio),
    )


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "k 4"],
    outputs: int,
    *,
    scale: float = 1.0,
    sampling_ratio: int | None = 2,
    aligned: bool = False,
) -> Float[Array, "k outputs outputs c"]:
    """Return each box as outputs x outputs bins, each the mean of bilinear samples.

    He et al. 2017, "Mask R-CNN", section 3, with torchvision's rules at the border: a sample
    farther than one pixel outside counts 0, nearer ones are held to the border.

    Args:
      boxes: in image pixels; feature pixels are `scale` times these.
      sampling_ratio: samples a bin along each axis; None: one a feature pixel, rounded up, of a
        box that is no larger than the map.
      aligned: pixels have their centres at .5; else, as first published, at 0, and a box is at
        least one pixel wide.
    """
    rows, columns = _align_weights(
        boxes, outputs, features.shape[:2], scale, sampling_ratio, aligned
    )
    rows, columns = rows.astype(features.dtype), columns.astype(features.dtype)
    return jnp.einsum("kph,hwc,kqw->kpqc", rows, features, columns)


def pyramid_level(
    boxes: Float[Array, "*k 4"], low: int, high: int, size: float = 224, level: int = 4
) -> Int[Array, "*k"]:
    """Return each box's pyramid level: `level` at an area of size^2, one less at half the side.

    Clamped to low..high. Lin et al. 2017, "Feature pyramid networks", equation 1.
    """
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    root = jnp.sqrt(sides[..., 0] * sides[..., 1])
    # 1e-6 as in torchvision, so that a root that was rounded down still counts
    least = [size * 2.0 ** (each - level - 1e-6) for each in range(low + 1, high + 1)]
    return low + (root[..., None] >= jnp.asarray(least, root.dtype)).sum(-1, dtype=jnp.int32)


def pyramid_roi_align(
    features: Sequence[Float[Array, "_ _ c"]],
    boxes: Float[Array, "k 4"],
    outputs: int,
    *,
    lowest: int = 2,
    sampling_ratio: int | None = 2,
    canonical_size: float = 224,
) -> Float[Array, "k outputs outputs c"]:
    """Return roi_align of each box from its pyramid_level's map; map i has stride 2^(lowest + i).

    Every level is asked for every box, and the weights of the boxes of other levels are zero: the
    lower levels add a third to the work of the first.
    """
    levels = pyramid_level(boxes, lowest, lowest + len(features) - 1, canonical_size)
    total = 0
    for i, each in enumerate(features):
        rows, columns = _align_weights(
            boxes, outputs, each.shape[:2], 2.0 ** -(lowest + i), sampling_ratio, False
        )
        rows = jnp.where((levels == lowest + i)[:, None, None], rows, 0).astype(each.dtype)
        total += jnp.einsum("kph,hwc,kqw->kpqc", rows, each, columns.astype(each.dtype))
    return total


def _round_half_away(x: Array) -> Array:
    return jnp.trunc(x + jnp.where(x < 0, -0.5, 0.5))


def _bin_ranges(
    low: Float[Array, " k"], high: Float[Array, " k"], outputs: int, size: int
) -> tuple[Int[Array, "k outputs"], Int[Array, "k outputs"]]:
    """Return each bin's first pixel on an axis, and how many of a region with both ends it has."""
    low, high = _round_half_away(low)[:, None], _round_half_away(high)[:, None]
    length, bins = jnp.maximum(high - low + 1, 1), jnp.arange(outputs)
    first, last = low + bins * length // outputs, low - (-(bins + 1) * length // outputs)
    first, last = (jnp.clip(x, 0, size).astype(jnp.int32) for x in (first, last))
    return first, last - first


def _running_maxima(x: Float[Array, "size *rest"]) -> Float[Array, "levels size *rest"]:
    """Return the maximum of the 1, 2, 4, ... entries from each one on; what reaches beyond is void.

    Any range's maximum is that of two entries of one level, which may overlap.
    """
    levels, length = [x], 1
    while 2 * length <= len(x):
        levels.append(jnp.maximum(levels[-1], jnp.roll(levels[-1], -length, 0)))
        length *= 2
    return jnp.stack(levels)


def roi_pool(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "k 4"],
    outputs: int,
    *,
    scale: float = 1.0,
) -> Float[Array, "k outputs outputs c"]:
    """Return the maximum of each of outputs x outputs bins of each box, 0 of a bin outside.

    The box's corners are rounded to feature pixels, both of which belong to it; bins that share a
    pixel both see it. Girshick 2015, "Fast R-CNN", section 2.1. The gradient is shared by equal
    maxima.
    """
    height, width, _ = features.shape
    x1, y1, x2, y2 = jnp.moveaxis(boxes * scale, -1, 0)
    tops, rows = _bin_ranges(y1, y2, outputs, height)
    lefts, columns = _bin_ranges(x1, x2, outputs, width)
    # [levels of y, levels of x, x, y, c]: a bin is four reads, however large it is
    table = jax.vmap(_running_maxima)(jnp.moveaxis(_running_maxima(features), 2, 1))

    def level_and_starts(first: Array, count: Array, size: int) -> tuple[Array, list[Array]]:
        powers = 2 ** np.arange(size.bit_length(), dtype=np.int32)
        covered = jnp.maximum(count, 1)[..., None] >= powers
        length = jnp.where(covered, powers, 1).max(-1)
        starts = first, first + count - length
        return covered.sum(-1, dtype=jnp.int32) - 1, [jnp.clip(x, 0, size - 1) for x in starts]

    level_y, starts_y = level_and_starts(tops, rows, height)
    level_x, starts_x = level_and_starts(lefts, columns, width)
    reads = [
        table.at[level_y[:, :, None], level_x[:, None], x[:, None], y[:, :, None]].get(
            mode="promise_in_bounds", wrap_negative_indices=False
        )
        for x in starts_x
        for y in starts_y
    ]
    filled = (rows > 0)[:, :, None] & (columns > 0)[:, None]
    return jnp.where(filled[..., None], functools.reduce(jnp.maximum, reads), 0)


def paste_masks(
    masks: Float[Array, "k m m"], boxes: Float[Array, "k 4"], height: int, width: int
) -> Float[Array, "k height width"]:
    """Return each mask laid over its box on a canvas, bilinearly; 0 elsewhere.

    As torchvision does it: the mask gets a border of one zero, the box grows likewise and loses
    its fractions, and its last pixel counts.
    """
    inner, size = masks.shape[-1], masks.shape[-1] + 2
    masks = jnp.pad(masks, ((0, 0), (1, 1), (1, 1)))
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) * inner, (boxes[:, 2:] - boxes[:, :2]) * size
    low, high = (
        jnp.sign(ends) * (jnp.abs(ends) // (2 * inner))
        for ends in (centres - sides, centres + sides)
    )
    lengths = jnp.maximum(high - low + 1, 1)

    def axis_weights(low, length, pixels):
        place = jnp.arange(pixels) - low[:, None]
        inside = (place >= 0) & (place < length[:, None])
        source = (place + 0.5) * (size / length)[:, None] - 0.5
        return jnp.where(inside[..., None], _interpolation(source, size), 0).astype(masks.dtype)

    rows = axis_weights(low[:, 1], lengths[:, 1], height)
    columns = axis_weights(low[:, 0], lengths[:, 0], width)
    return jnp.einsum("kyh,khw,kxw->kyx", rows, masks, columns)
