"""Images as functions of what is optimised, against Lucent in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.visualize import image_parameterization as parameterization
from tests.visualize.synthesis import reference


@pytest.mark.parametrize("case", ["fourier_even", "fourier_odd"])
def test_spectrum_and_colours_are_lucids(case, float64):
    case = reference(case)
    images = parameterization.fourier(case["images"].shape).decode(jnp.asarray(case["spectrum"]))
    np.testing.assert_allclose(images, case["images"], rtol=1e-12)
    np.testing.assert_allclose(parameterization.COLOR_MATRIX, case["colors"], rtol=1e-14)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "make", [parameterization.fourier, parameterization.pixels], ids=["fourier", "pixels"]
)
def test_encode_is_the_inverse_of_decode(make, channels, float64):
    images = jnp.asarray(np.random.default_rng(0).uniform(0.01, 0.99, (2, 6, 7, channels)))
    made = make(images.shape)
    np.testing.assert_allclose(made.decode(made.encode(images)), images, atol=1e-12)


def test_a_spectrum_starts_as_faint_grey_and_stays_in_range():
    made = parameterization.fourier((4, 32, 32, 3))
    images = made.decode(made.init(jax.random.key(0)))
    assert images.dtype == jnp.float32
    assert 0 < float(images.std()) < 0.05
    np.testing.assert_allclose(images.mean(), 0.5, atol=0.02)
    far = made.decode(1e3 * made.init(jax.random.key(0)))
    assert far.min() >= 0
    assert far.max() <= 1


def test_one_step_moves_large_shapes_more_than_fine_grain():
    made = parameterization.fourier((1, 32, 32, 1))
    zeros = jnp.zeros_like(made.init(jax.random.key(0)))
    low, high = (made.decode(zeros.at[0, f, f, 0, 0].set(1.0)).std() for f in (1, 12))
    np.testing.assert_allclose(low / high, 12, rtol=0.2)
