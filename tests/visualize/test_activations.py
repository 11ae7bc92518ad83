"""The patches that excite a channel most."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, ops
from cnn_jax.programs import receptive_field
from cnn_jax.visualize.activations import patches, peaks, used_share

SPOT = np.zeros((4, 8, 8, 1), np.float32)
SPOT[1, 5, 2] = 1.0
SPOT[3, 0, 7] = 2.0


def sums(images):
    """Two channels: the sum of each 3x3 window, and its negative."""
    x = ops.conv(images, jnp.ones((3, 3, 1, 1)), padding="valid")
    return jnp.concatenate([x, -x], axis=-1)


@pytest.mark.parametrize("batch_size", [64, 3])
def test_the_strongest_images_come_first_with_their_place(batch_size):
    found = peaks(sums, SPOT, 3, batch_size=batch_size)
    assert found.values[0].tolist() == [2, 1, 0]
    assert found.images[0, :2].tolist() == [3, 1]
    # the first of the windows that see the spot
    assert (found.rows[0, 0], found.columns[0, 0]) == (0, 5)
    assert (found.rows[0, 1], found.columns[0, 1]) == (3, 0)
    assert found.values[1].tolist() == [0, 0, 0]


def test_a_patch_is_what_the_unit_sees():
    cut = patches(sums, SPOT, peaks(sums, SPOT, 2))
    assert cut.shape == (2, 2, 3, 3, 1)
    np.testing.assert_array_equal(cut[0, 0], SPOT[3, 0:3, 5:8])
    np.testing.assert_array_equal(cut[0, 1], SPOT[1, 3:6, 0:3])


def test_outside_the_image_a_patch_is_grey():
    def padded(images):
        return ops.conv(images, jnp.ones((3, 3, 1, 1)), padding="same", stride=1) * images

    cut = patches(padded, SPOT, peaks(padded, SPOT, 1))
    assert cut[0, 0, :, :, 0].tolist() == [[0.5, 0.5, 0.5], [0, 2, 0.5], [0, 0, 0.5]]


def test_units_that_see_everything_have_the_image_as_patch():
    def centred(images):
        return images - images.mean(axis=(1, 2), keepdims=True)

    cut = patches(centred, SPOT, peaks(centred, SPOT, 1))
    np.testing.assert_array_equal(cut[0, 0], SPOT[3])


def test_the_pixels_seen_through_strides_and_pooling():
    """3x3/2 without padding, then 2x2/2: units start every 4 pixels and see 5."""

    def f(images):
        x = ops.conv(images, jnp.ones((3, 3, 1, 1)), padding="valid", stride=2)
        return ops.max_pool(x, 2)

    rows, columns = receptive_field.seen_pixels(f, jnp.zeros((1, 9, 13, 1)))
    assert [edge.tolist() for edge in rows] == [[0, 4], [4, 8]]
    assert [edge.tolist() for edge in columns] == [[0, 4, 8], [4, 8, 12]]


def test_a_layer_without_extent_says_so():
    with pytest.raises(UsageError, match="no rows and columns"):
        peaks(lambda images: images.mean(axis=(1, 2)), SPOT)


def test_a_dead_channel_is_never_used():
    assert used_share(SPOT).tolist() == [2 / 256]
    assert used_share(-SPOT).tolist() == [0]
