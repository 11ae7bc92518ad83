"""Regions against torchvision's stored outputs and against loops written from the definitions."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import ops
from tests.ops.test_boxes import mixed_boxes

SIZES = dict(np.load(Path(__file__).parents[1] / "references" / "roi_sizes.npz"))
PUBLISHED = (2, 3, 4, 6, 7, 14)  # outputs along an axis
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
REFERENCE = dict(np.load(Path(__file__).parents[1] / "references" / "detection_ops.npz"))


def loop_sample(features, y, x):
    """Bilinear interpolation with RoIAlign's border: 0 beyond a pixel outside, else held."""
    height, width, _ = features.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = math.floor(y), math.floor(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    above = features[y0, x0] * (1 - dx) + features[y0, x1] * dx
    below = features[y1, x0] * (1 - dx) + features[y1, x1] * dx
    return above * (1 - dy) + below * dy


def loop_roi_align(features, box, outputs, scale, ratio, aligned):
    x1, y1, x2, y2 = box * scale - 0.5 * aligned
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1), max(width, 1)
    out = np.zeros((outputs, outputs, features.shape[-1]))
    for p, q, i, j in np.ndindex(outputs, outputs, ratio, ratio):
        y = y1 + (p + (i + 0.5) / ratio) * height / outputs
        x = x1 + (q + (j + 0.5) / ratio) * width / outputs
        out[p, q] += loop_sample(features, y, x) / ratio**2
    return out


def loop_roi_pool(features, box, outputs, scale):
    def rounded(x):
        return int(math.copysign(math.floor(abs(x) + 0.5), x))

    x1, y1, x2, y2 = (rounded(x) for x in box * scale)

    def bins(low, high, size):
        step = max(high - low + 1, 1) / outputs
        for i in range(outputs):
            first, last = low + math.floor(i * step), low + math.ceil((i + 1) * step)
            yield slice(min(max(first, 0), size), min(max(last, 0), size))

    rows = list(bins(y1, y2, features.shape[0]))
    columns = list(bins(x1, x2, features.shape[1]))
    out = np.zeros((outputs, outputs, features.shape[-1]))
    for p, q in np.ndindex(outputs, outputs):
        window = features[rows[p], columns[q]]
        if window.size:
            out[p, q] = window.max((0, 1))
    return out


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("align_2", {"sampling_ratio": 2}),
        ("align_3_aligned", {"sampling_ratio": 3, "aligned": True}),
        ("align_adaptive", {"sampling_ratio": None}),
    ],
)
def test_roi_align_equals_torchvisions(name, settings):
    found = ops.roi_align(REFERENCE["features"], REFERENCE["rois"], 4, scale=0.25, **settings)
    np.testing.assert_allclose(found, REFERENCE[name], atol=1e-13)


def test_roi_pool_equals_torchvisions():
    found = ops.roi_pool(REFERENCE["features"], REFERENCE["rois"], 4, scale=0.25)
    np.testing.assert_array_equal(found, REFERENCE["pool"])


def test_pyramid_roi_align_equals_torchvisions():
    maps = [REFERENCE[f"map_{i}"] for i in range(4)]
    found = ops.pyramid_roi_align(maps, REFERENCE["wide_boxes"], 3)
    np.testing.assert_allclose(found, REFERENCE["pyramid"], atol=1e-13)
    levels = ops.pyramid_level(REFERENCE["wide_boxes"], 2, 5)
    assert set(np.asarray(levels)) >= {2, 3, 4}  # the case asks several levels


def test_pasted_masks_equal_torchvisions():
    found = ops.paste_masks(REFERENCE["masks"], REFERENCE["places"], 48, 64)
    np.testing.assert_allclose(found, REFERENCE["pasted"], atol=1e-13)


def row_and_boxes(dtype, last):
    """The row of make_roi_sizes.py, and a box of each size from 1 to 100 pixels."""
    row = np.random.default_rng(0).permutation(100).reshape(1, 100, 1)
    boxes = [[0.0, 0, size + last, 1 + last] for size in range(1, 101)]
    return row.astype(dtype), np.array(boxes, dtype)


@BOTH
@pytest.mark.parametrize("outputs", PUBLISHED)
def test_pooled_boxes_of_every_size_have_the_bins_of_whole_numbers(outputs, dtype):
    row, boxes = row_and_boxes(dtype, -1)
    found = jax.jit(ops.roi_pool, static_argnums=2)(row, boxes, outputs)[:, 0, :, 0]
    expected = [
        [row[0, i * n // outputs : -(-(i + 1) * n // outputs)].max() for i in range(outputs)]
        for n in range(1, 101)
    ]
    np.testing.assert_array_equal(found, expected)
    theirs = SIZES[f"pool/{8 * row.itemsize}/{outputs}"]
    # where a quotient is whole, torchvision's own is sometimes rounded up
    different = set(np.flatnonzero((found != theirs).any(1)) + 1)
    assert different <= {np.float32: {57, 62}, np.float64: {29, 58}}[dtype]


@BOTH
@pytest.mark.parametrize("outputs", PUBLISHED)
def test_aligned_boxes_of_every_size_have_torchvisions_samples(outputs, dtype):
    row, boxes = row_and_boxes(dtype, 0)
    align = jax.jit(ops.roi_align, static_argnums=2, static_argnames="sampling_ratio")
    found = align(row, boxes, outputs, sampling_ratio=None)[:, 0, :, 0]
    theirs = SIZES[f"align/{8 * row.itemsize}/{outputs}"]
    np.testing.assert_allclose(found, theirs, atol=1e-3)  # of values up to 100


def test_what_a_box_holds_does_not_depend_on_how_many_boxes_come_along():
    x = np.zeros((8, 8, 1), np.float32)
    x[3, 3] = 1
    box = np.array([[0, 0, 2, 2]], np.float32)
    for count in (1, 2):
        found = jax.jit(ops.roi_pool, static_argnums=2)(x, np.repeat(box, count, 0), 7)
        np.testing.assert_array_equal(found, np.zeros((count, 7, 7, 1)))


@BOTH
def test_a_sample_exactly_a_pixel_outside_counts_and_one_beyond_does_not(dtype):
    features = np.ones((4, 8, 1), dtype)
    boxes = np.array([[-4, 0, 10, 4], [-5, 0, 9, 4], [-4, 0, 17, 4]], dtype)
    align = jax.jit(ops.roi_align, static_argnums=2, static_argnames="sampling_ratio")
    found = align(features, boxes, 7, sampling_ratio=1)[:, 3, :, 0]
    # the samples lie at -3, -1, ..., 9, at -4, -2, 0, ..., 8, and at -2.5, .5, ..., 15.5
    expected = [[0, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0]]
    np.testing.assert_array_equal(found, expected)


@BOTH
@pytest.mark.parametrize("mask", [7, 14, 28])
def test_masks_of_boxes_of_every_size_are_placed_by_whole_numbers(mask, dtype):
    start, side = (each.ravel() for each in np.mgrid[0:9, 1:101])
    boxes = np.stack([start, 0 * side, start + side, 0 * side + 4], -1).astype(dtype)
    pasted = jax.jit(ops.paste_masks, static_argnums=(2, 3))
    found = pasted(np.ones((len(boxes), mask, mask), dtype), boxes, 3, 120)[:, 2] > 1e-4
    ends = ((2 * start + side) * mask + sign * side * (mask + 2) for sign in (-1, 1))
    low, high = (np.sign(end) * (abs(end) // (2 * mask)) for end in ends)
    # without the mask's border of zeros, whose centres are half a pixel of the mask inside
    border = (high - low + 1) / (mask + 2) / 2
    centre = np.arange(120) + 0.5 - low[:, None]
    expected = (centre > border[:, None]) & (centre < (high - low + 1 - border)[:, None])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("ratio", "aligned"), [(1, False), (2, True)])
def test_roi_align_is_the_loop_on_degenerate_boxes(ratio, aligned):
    features = np.random.default_rng(0).normal(size=(11, 8, 2))
    boxes = mixed_boxes(3)
    boxes = boxes[np.abs(boxes).max(1) < 1e5]
    found = ops.roi_align(features, boxes, 3, scale=0.5, sampling_ratio=ratio, aligned=aligned)
    expected = [loop_roi_align(features, box, 3, 0.5, ratio, aligned) for box in boxes]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_roi_pool_is_the_loop_on_degenerate_boxes():
    features = np.random.default_rng(0).normal(size=(11, 8, 2))
    boxes = mixed_boxes(4)
    found = ops.roi_pool(features, boxes, 3, scale=0.5)
    expected = [loop_roi_pool(features, box, 3, 0.5) for box in boxes]
    np.testing.assert_array_equal(found, expected)


def test_the_level_falls_by_one_with_half_the_side():
    sides = np.array([56, 111, 112, 224, 447, 448, 5000, 0, 1])
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], -1).astype(float)
    expected = [2, 2, 3, 4, 4, 5, 5, 2, 2]
    np.testing.assert_array_equal(ops.pyramid_level(boxes, 2, 5), expected)


@BOTH
def test_the_level_of_boxes_of_whole_sides_is_that_of_their_area(dtype):
    width, height = (each.ravel() for each in np.mgrid[1:1000:7, 1:1000:7])
    squares = np.arange(1, 1000)
    width, height = np.concatenate([width, squares]), np.concatenate([height, squares])
    boxes = np.stack([0 * width, 0 * width, width, height], -1).astype(dtype)
    found = jax.jit(ops.pyramid_level, static_argnums=(1, 2))(boxes, 2, 5)
    expected = 2 + sum((width * height >= side**2).astype(int) for side in (112, 224, 448))
    np.testing.assert_array_equal(found, expected)


def test_gradients_of_the_features_are_finite_for_degenerate_boxes():
    features = np.random.default_rng(0).normal(size=(11, 8, 2))
    for pool in (ops.roi_align, ops.roi_pool):
        slope = jax.grad(lambda x, pool=pool: pool(x, mixed_boxes(5), 3).sum())(features)
        assert np.isfinite(slope).all()
        assert (slope != 0).any()


def test_a_constant_map_stays_constant_inside():
    features = np.full((10, 10, 1), 3.0)
    inside = np.array([[1.0, 2, 8, 7], [4, 4, 5, 5]])
    for pool in (ops.roi_align, ops.roi_pool):
        np.testing.assert_allclose(pool(features, inside, 2), 3)
