"""Averages over views of an image."""

import jax.numpy as jnp
import numpy as np

from cnn_jax.test_time_augmentation import VIEWS

IMAGES = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)


def corner(images):
    """A network that answers with the upper left pixel."""
    return jnp.asarray(images)[:, 0, 0]


def test_one_view_is_the_network_itself():
    assert VIEWS["one"](corner)(IMAGES) == 0


def test_mirror_averages_the_two_upper_corners():
    assert VIEWS["mirror"](corner)(IMAGES) == (0 + 3) / 2


def test_mirror_brings_the_outputs_of_pixels_back_to_their_place():
    np.testing.assert_array_equal(VIEWS["mirror"](jnp.asarray)(IMAGES), IMAGES)
    columns = VIEWS["mirror"](lambda x: jnp.asarray(x).at[:, :, 0].set(0))(IMAGES)
    np.testing.assert_array_equal(columns[0, 0, :, 0], [0, 1, 2, 3 / 2])


def test_mirrors_average_the_four_corners_and_bring_pixels_back():
    assert VIEWS["mirrors"](corner)(IMAGES) == (0 + 3 + 12 + 15) / 4
    np.testing.assert_array_equal(VIEWS["mirrors"](jnp.asarray)(IMAGES), IMAGES)


def test_shifts_by_one_pixel_reflect_what_is_missing():
    down, up = (5 + 6) / 2, (5 + 6) / 2  # upper corners: reflected pixels; those of the next row
    assert VIEWS["mirror_shift"](corner)(IMAGES) == (0 + 3) / 2 / 2 + down / 4 + up / 4
