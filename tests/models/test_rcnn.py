"""R-CNN's network sees each region warped to one size, with its surroundings."""

import jax.numpy as jnp
import numpy as np

from cnn_jax.models import rcnn
from tests.models.tracing import parameters, shapes

RAMP = jnp.broadcast_to(jnp.arange(40.0)[None, :, None], (30, 40, 1))  # each pixel is its column


def test_a_warp_shows_a_sixteenth_of_its_side_around_the_box():
    """Of 227 pixels, 16 on each side: the box is the 195 between."""
    box = jnp.array([[10.0, 8, 30, 24]])
    found = np.asarray(rcnn.warp(RAMP, box, 227))[0, :, :, 0]
    columns = found[100]
    width = 20 * 227 / 195
    expected = 10 - (width - 20) / 2 + (np.arange(227) + 0.5) * width / 227 - 0.5
    np.testing.assert_allclose(columns, expected, atol=1e-3)
    np.testing.assert_allclose(columns[[16, 210]], [10, 29], atol=0.5)
    np.testing.assert_allclose(found, np.broadcast_to(columns, found.shape), rtol=1e-6)


def test_beyond_the_image_lies_the_mean_colour():
    found = np.asarray(rcnn.warp(RAMP + 1, jnp.array([[0.0, 0, 40, 30]]), 227))[0, :, :, 0]
    assert (found[:10] == 0).all()
    assert (found[:, -10:] == 0).all()
    assert (found[20:-20, 20:-20] > 0).all()


def test_a_box_of_no_area_is_warped_to_one_colour():
    found = np.asarray(rcnn.warp(RAMP, jnp.array([[7.0, 3, 7, 3]]), 4))
    assert np.isfinite(found).all()
    assert np.ptp(found) == 0


def test_the_published_form_is_alexnet_on_227_pixels():
    """Its layers but the last, and a classifier of 21; the regressions come later."""
    alexnet, its_head = 62_378_344, 4096 * 1000 + 1000
    own_heads = 4096 * 21 * 5 + 21 * 5
    assert parameters("rcnn_alexnet", 64) == alexnet - its_head + own_heads
    found = shapes("rcnn_alexnet", 64)
    assert found["box_head/last_map"] == (6, 6, 256)
    assert found["box_head/fc7_relu"] == (4096,)


def test_boxes_are_what_was_proposed():
    settings = rcnn.SMALL
    assert not settings.learns_boxes
    assert (settings.regions_sampled, settings.region_positives) == (16, 0.25)  # 32 of 128 in 8
