"""Adaptive pooling against PyTorch's, and features of one size from images of any."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.ops.adaptive import bins
from tests.ops.test_convolution import CLOSE


@pytest.mark.parametrize("counts", [(3, 2), (7, 5), (9, 4), (1, 1)])
def test_equals_torch(torch_cases, counts):
    case = torch_cases[f"adaptive/{counts[0]}x{counts[1]}"]
    np.testing.assert_array_equal(ops.adaptive_max_pool(case["x"], counts), case["max"])
    np.testing.assert_allclose(ops.adaptive_avg_pool(case["x"], counts), case["average"], **CLOSE)


def test_bins_cover_everything():
    assert bins(7, 3) == [(0, 3), (2, 5), (4, 7)]
    assert bins(4, 2) == [(0, 2), (2, 4)]
    assert bins(2, 3) == [(0, 1), (0, 2), (1, 2)]


def test_a_pyramid_gives_one_length_for_any_image_size():
    for size in ((13, 13), (10, 17), (4, 5)):
        features = ops.spatial_pyramid_pool(jnp.ones((2, *size, 3)), (1, 2, 4))
        assert features.shape == (2, (1 + 4 + 16) * 3)


def test_a_pyramids_levels_are_adaptive_pools_coarse_to_fine():
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 2))
    features = ops.spatial_pyramid_pool(x, (1, 2), kind="max")[0]
    np.testing.assert_array_equal(features[:2], x[0].max((0, 1)))
    np.testing.assert_array_equal(features[2:4], x[0, :4, :4].max((0, 1)))
    np.testing.assert_array_equal(features[-2:], x[0, 4:, 4:].max((0, 1)))


def test_global_average_is_the_one_bin():
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
    np.testing.assert_allclose(
        ops.global_avg_pool(x), ops.adaptive_avg_pool(x, 1)[:, 0, 0], **CLOSE
    )
