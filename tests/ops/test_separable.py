"""Depthwise-separable convolution is a dense one whose kernel is a product."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from tests.ops.test_convolution import CLOSE


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_equals_the_dense_convolution_by_the_product_of_the_kernels(settings):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, 8, 3))
    depthwise, pointwise = rng.normal(size=(3, 3, 1, 3)), rng.normal(size=(1, 1, 3, 5))
    dense = depthwise[:, :, 0, :, None] * pointwise[0, 0]
    np.testing.assert_allclose(
        ops.separable_conv(x, depthwise, pointwise, **settings),
        ops.conv(x, dense, **settings),
        **CLOSE,
    )


def test_depthwise_features_stand_channel_by_channel():
    x = jnp.array([[1.0, 10.0]])[None]  # one pixel, two channels
    kernel = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4)
    np.testing.assert_array_equal(ops.depthwise_conv(x, kernel)[0, 0], [1, 2, 30, 40])
