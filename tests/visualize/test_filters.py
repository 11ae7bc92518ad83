"""Filters as images."""

import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.visualize.filters import filter_picture, kernels, normalized
from cnn_jax.visualize.mosaic import mosaic

KERNEL = np.array([[1.0, -2.0], [0.5, 0.25]]).reshape(1, 2, 1, 2)  # filters (1, 0.5), (-2, 0.25)


def filters(weights):
    return [weights[..., k].ravel().tolist() for k in range(weights.shape[-1])]


def test_each_filter_is_scaled_by_its_own_largest_weight_about_mid_grey():
    assert filters(normalized(KERNEL, "each")) == [[1, 0.75], [0, 0.5625]]


def test_the_layers_largest_weight_keeps_weak_filters_weak():
    assert filters(normalized(KERNEL, "layer")) == [[0.75, 0.625], [0, 0.5625]]


def test_or_each_filter_goes_from_black_to_white():
    assert filters(normalized(KERNEL, "range")) == [[1, 0], [0, 1]]


@pytest.mark.parametrize("normalization", ["each", "layer", "range"])
def test_a_filter_of_zeros_is_a_plain_picture(normalization):
    assert len(np.unique(normalized(np.zeros((3, 3, 3, 2)), normalization))) == 1


def test_an_unknown_normalization_lists_the_known_ones():
    with pytest.raises(UsageError, match="unknown normalization 'minmax'; known: each, layer"):
        normalized(KERNEL, "minmax")


def test_kernels_of_convolutions_come_in_the_given_order():
    params = {
        "a": {"conv": {"kernel": np.zeros((3, 3, 4, 5))}},
        "head": {"kernel": np.zeros((5, 2)), "bias": np.zeros(2)},
        "stem": {"kernel": np.zeros((7, 7, 3, 4))},
    }
    assert list(kernels(params)) == ["a/conv", "stem"]
    assert list(kernels(params, order=["input", "stem", "a/conv", "head"])) == ["stem", "a/conv"]


def test_first_filters_are_colour_images_and_deeper_ones_rows_of_grey_ones():
    assert filter_picture(np.ones((5, 4, 3, 6)), columns=4).shape == (5 + 1 + 5, 4 * 4 + 3, 3)
    assert filter_picture(np.ones((3, 3, 8, 20)), most=5).shape == (5 * 4 - 1, 5 * 4 - 1, 1)


def test_a_mosaic_goes_row_by_row():
    images = np.arange(3.0).reshape(3, 1, 1, 1)
    assert mosaic(images, 2, gap=1, background=9)[..., 0].tolist() == [
        [0, 9, 1],
        [9, 9, 9],
        [2, 9, 9],
    ]
