"""Occlusion maps equal captum's in float64, and the hand-computed ones of a linear score."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.visualize.occlusion import occluded_outputs, occlusion

pytestmark = pytest.mark.usefixtures("float64")

CAPTUM = {"window": (3, 2), "stride": (2, 2), "fill": 0.25}


@pytest.mark.parametrize("batch_size", [64, 5])
def test_maps_equal_captums(batch_size, case, reference, network):
    f, images, targets = network(case), reference["images"], reference["targets"]
    for output, name in (("score", "occlusion"), ("probability", "occlusion_probability")):
        ours = occlusion(f, images, targets, **CAPTUM, output=output, batch_size=batch_size)
        # captum fills all three channels alike
        np.testing.assert_allclose(ours, case[name][..., 0], rtol=1e-10, atol=1e-12)


def total(images):
    """Two scores: the sum of the pixels, and none."""
    return jnp.stack([images.sum(axis=(1, 2, 3)), jnp.zeros(len(images))], axis=1)


IMAGE = np.arange(12.0).reshape(1, 3, 4, 1)


def test_one_pixel_windows_give_the_image_itself():
    ours = occlusion(total, IMAGE, [0], window=(1, 1), stride=(1, 1))
    np.testing.assert_array_equal(ours[0], IMAGE[0, ..., 0])
    filled = occlusion(total, IMAGE, [0], window=(1, 1), stride=(1, 1), fill=5.0)
    np.testing.assert_array_equal(filled[0], IMAGE[0, ..., 0] - 5)


def test_windows_add_up_or_are_averaged():
    """Columns 0 1 2 3 sum to 12 15 18 21; windows at 0, 1, 2 lose 27, 33, 39."""
    windows = {"window": (3, 2), "stride": (1, 1)}
    summed = occlusion(total, IMAGE, [0], **windows, aggregate="sum")
    assert summed[0].tolist() == [[27, 60, 72, 39]] * 3
    mean = occlusion(total, IMAGE, [0], **windows)
    assert mean[0].tolist() == [[27, 30, 36, 39]] * 3


def test_after_each_batch_the_map_is_that_of_the_windows_so_far():
    seen = []
    windows = {"window": (1, 1), "stride": (1, 1), "batch_size": 6}
    images = np.concatenate([IMAGE, IMAGE + 1])
    occlusion(total, images, [0, 0], **windows, watch=lambda maps: seen.append(maps.copy()))
    assert len(seen) == 4  # two batches an image
    first, second = images[..., 0].reshape(2, -1)
    for done, maps in zip((6, 12, 18, 24), seen, strict=True):
        expected = np.concatenate([first, second])
        expected[done:] = 0  # not covered yet
        np.testing.assert_array_equal(maps.ravel(), expected)


def test_the_last_window_may_stick_out():
    """Windows of 3 columns at 0 and 3: the second covers the last column alone."""
    ours = occlusion(total, IMAGE, [0], window=(3, 3), stride=(3, 3))
    assert ours[0].tolist() == [[45, 45, 45, 21]] * 3


def test_outputs_by_place_are_those_of_the_covered_images():
    outputs = occluded_outputs(total, IMAGE, [0], window=(3, 1), stride=(3, 1), output="score")
    assert outputs.tolist() == [[[54, 51, 48, 45]]]


def test_what_cannot_be_covered_says_so():
    with pytest.raises(UsageError, match="window of 4 does not fit into 3 pixels; give 1 to 3"):
        occlusion(total, IMAGE, [0], window=(4, 1), stride=(1, 1))
    with pytest.raises(UsageError, match="stride of 2 with a window of 1 leaves pixels out"):
        occlusion(total, IMAGE, [0], window=(1, 1), stride=(1, 2))
    with pytest.raises(UsageError, match="unknown aggregate 'max'; known: mean, sum"):
        occlusion(total, IMAGE, [0], window=(1, 1), stride=(1, 1), aggregate="max")
    with pytest.raises(UsageError, match="unknown output 'prob'"):
        occlusion(total, IMAGE, [0], window=(1, 1), stride=(1, 1), output="prob")
