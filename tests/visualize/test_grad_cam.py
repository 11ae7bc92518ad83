"""Grad-CAM equals captum's in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.visualize.grad_cam import grad_cam, guided_grad_cam, last_spatial_layer, upsample

pytestmark = pytest.mark.usefixtures("float64")


def test_maps_equal_captums(case, reference, network):
    f, images, targets = network(case), reference["images"], reference["targets"]
    cam = grad_cam(f, images, targets, "features")
    np.testing.assert_allclose(cam, case["grad_cam"][..., 0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        upsample(cam, images.shape[1:3]), case["grad_cam_upsampled"][..., 0], atol=1e-12
    )
    guided = guided_grad_cam(f, images, targets, "features")
    np.testing.assert_allclose(guided, case["guided_grad_cam"], rtol=1e-10, atol=1e-12)


def test_a_linear_head_by_hand():
    """Score 3 mean(A_0) - 1 mean(A_1) on 2x2 maps: the map is relu(3/4 A_0 - 1/4 A_1)."""

    def f(images, tap):
        pooled = tap("features", 2 * images).mean(axis=(1, 2))
        return pooled @ jnp.array([[3.0], [-1.0]])

    images = jnp.array([[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 3.0], [1.0, 4.0]]]])
    assert grad_cam(f, images, [0], "features")[0].tolist() == [[1.5, 0], [0, 0]]


def test_upsampling_interpolates_between_the_cells_centres():
    maps = jnp.array([[[0.0, 4.0]]])
    assert upsample(maps, (1, 4))[0].tolist() == [[0, 1, 3, 4]]


def test_a_layer_that_is_unknown_or_has_no_extent_says_so(reference, network):
    f = network({"name": "plain"} | reference["plain"])
    images, targets = reference["images"], reference["targets"]
    with pytest.raises(UsageError, match="unknown layer 'feature'; did you mean 'features'"):
        grad_cam(f, images, targets, "feature")
    with pytest.raises(UsageError, match="'flat' has no rows and columns, its activation is 30"):
        grad_cam(f, images, targets, "flat")


def test_the_last_layer_with_rows_and_columns(reference, network):
    f = network({"name": "plain"} | reference["plain"])
    assert last_spatial_layer(f, reference["images"]) == "features"
