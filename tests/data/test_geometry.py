"""Pixels and boxes of an image move together, wherever on the canvas they are placed."""

import resource

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import geometry
from cnn_jax.data.augmentation import Augmentation

NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR
SIZE = (48, 24)  # width, height
BOX = (8, 4, 24, 16)  # pixels


@pytest.fixture(scope="module")
def image():
    """White where the box is, grey elsewhere."""
    pixels = np.full((SIZE[1], SIZE[0]), 100, np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return Image.fromarray(pixels)


def bounds(canvas):
    """The box around the white pixels."""
    rows, columns = np.nonzero(np.asarray(canvas) == 255)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("mirrors", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize(
    "placement",
    [
        geometry.fitted(SIZE, 24),
        geometry.fitted(SIZE, 96)._replace(corner=(-3, 5)),
        geometry.Placement((4, 2, 28, 18), (32, 32), (0, 0), 32),
    ],
)
def test_a_box_bounds_its_object_wherever_it_is_placed(image, placement, mirrors):
    for axis in mirrors:
        placement = geometry.mirrored(placement, axis)
    canvas = geometry.placed(image, placement, NEAREST, [0])
    assert canvas.size == (placement.canvas, placement.canvas)
    shares = np.array([BOX]) / np.tile(SIZE, 2)
    (found,) = geometry.placed_boxes(shares, SIZE, placement)
    np.testing.assert_allclose(found, bounds(canvas), atol=1)


def test_a_whole_image_lies_in_the_upper_left_corner(image):
    canvas = np.asarray(geometry.placed(image, geometry.fitted(SIZE, 48), NEAREST, [7]))
    np.testing.assert_array_equal(canvas[:24], np.asarray(image))
    assert (canvas[24:] == 7).all()
    assert geometry.fit(image, 24).size == (24, 12)


def test_mirroring_twice_is_nothing_and_once_mirrors_the_canvas(image):
    placement = geometry.fitted(SIZE, 40)._replace(corner=(3, 9))
    canvas = np.asarray(geometry.placed(image, placement, BILINEAR, [7]))
    for axis in (0, 1):
        once = geometry.mirrored(placement, axis)
        found = np.asarray(geometry.placed(image, once, BILINEAR, [7]))
        np.testing.assert_array_equal(found, np.flip(canvas, 1 - axis))
        assert geometry.mirrored(once, axis) == placement


def test_a_random_placement_follows_the_options():
    rng = np.random.default_rng(0)
    assert geometry.random_placement(SIZE, rng, Augmentation(), 24) == geometry.fitted(SIZE, 24)
    padded = Augmentation(crop="pad", pad=3)
    corners = [geometry.random_placement(SIZE, rng, padded, 24).corner for _ in range(200)]
    assert {x for x, _ in corners} == {y for _, y in corners} == set(range(-3, 4))
    mirrors = Augmentation(flip=True)
    flags = [geometry.random_placement(SIZE, rng, mirrors, 24).mirrored for _ in range(20)]
    assert set(flags) == {(False, False), (True, False)}
    part = geometry.random_placement(SIZE, rng, Augmentation(crop="resized"), 24)
    assert part.size == (24, 24)


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_a_thin_image_takes_little_memory(size):
    stripe = Image.new("RGB", size, "white")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    placement = geometry.fitted(size, 224)
    geometry.placed(stripe, placement, BILINEAR, (0, 0, 0))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB
    (box,) = geometry.placed_boxes(np.array([[0.0, 0, 1, 1]]), size, placement)
    assert max(box) == 224
