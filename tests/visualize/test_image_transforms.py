"""Transformations that an optimised image must survive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnn_jax.visualize import image_transforms as transforms
from tests.visualize.synthesis import reference

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 12, 14, 3)), jnp.float32)


def test_rotation_and_scale_are_pytorchs_bilinear_sampling(float64):
    case = reference("rotation")
    images = jnp.asarray(case["images"])
    scale, degrees = (jnp.full(2, float(case[name])) for name in ("scale", "degrees"))
    turned = transforms.affine(images, scale, degrees, fill=0.0)
    np.testing.assert_allclose(turned, case["turned"], atol=1e-12)


def test_a_quarter_turn_is_counter_clockwise():
    square = IMAGES[:, :, :12]
    turned = transforms.affine(square, jnp.ones(3), jnp.full(3, 90.0))
    np.testing.assert_allclose(turned, jnp.rot90(square, axes=(1, 2)), atol=1e-5)


def test_jitter_crops_and_every_image_draws_its_own_place():
    same = jnp.broadcast_to(IMAGES[:1], (64, 12, 14, 3))
    crops = np.asarray(transforms.jitter(2)(KEY, same))
    assert crops.shape == (64, 10, 12, 3)
    expected = {
        np.asarray(IMAGES[0, y : y + 10, x : x + 12]).tobytes() for y in range(3) for x in range(3)
    }
    assert {crop.tobytes() for crop in crops} == expected


@pytest.mark.parametrize("value", [0.5, None])
def test_pad_surrounds(value):
    padded = transforms.pad(2, value)(KEY, IMAGES)
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], IMAGES)
    np.testing.assert_array_equal(padded[:, 0, 2:-2], 0.5 if value else IMAGES[:, 2])


def test_standard_keeps_the_size_repeats_by_key_and_is_differentiable():
    transform = jax.jit(transforms.standard(12))
    seen = transform(KEY, IMAGES)
    assert seen.shape == IMAGES.shape
    np.testing.assert_array_equal(seen, transform(KEY, IMAGES))
    assert not np.array_equal(seen, transform(jax.random.key(1), IMAGES))
    slope = jax.grad(lambda x: transform(KEY, x).sum())(IMAGES)
    assert np.isfinite(slope).all()
    assert np.all(slope[:, 4:-4, 4:-4] > 0)


def test_a_constant_image_of_the_fills_colour_stays_so():
    grey = jnp.full((2, 16, 16, 3), 0.5)
    np.testing.assert_allclose(transforms.standard(16)(KEY, grey), 0.5, atol=1e-6)


def test_blur_is_scipys_gaussian_filter(float64):
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 11, 9, 3)))
    expected = ndimage.gaussian_filter(images, (0, 1.2, 1.2, 0), mode="reflect", truncate=4.0)
    np.testing.assert_allclose(transforms.gaussian_blur(images, 1.2), expected, rtol=1e-12)
