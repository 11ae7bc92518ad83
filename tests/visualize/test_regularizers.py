"""The penalties of optimised images and their gradients, against PyTorch in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.visualize import regularizers
from tests.visualize.synthesis import reference

PENALTIES = {
    "l2": regularizers.l2,
    "alpha_norm": regularizers.alpha_norm,
    "total_variation_2": regularizers.total_variation,
    "total_variation_1": lambda x: regularizers.total_variation(x, 1.0),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_value_and_gradient_are_pytorchs(name, float64):
    case = reference("penalties")
    images = jnp.asarray(case["images"])
    np.testing.assert_allclose(PENALTIES[name](images), case[name], rtol=1e-13)
    gradient = jax.grad(lambda x: PENALTIES[name](x).sum())(images)
    np.testing.assert_allclose(gradient, case[f"{name}_gradient"], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
def test_a_flat_image_has_no_variation_and_a_finite_gradient(beta):
    def total(x):
        return regularizers.total_variation(x, beta).sum()

    flat = jnp.full((1, 4, 5, 3), 0.3)
    assert total(flat) == 0
    np.testing.assert_array_equal(jax.grad(total)(flat), 0)
