"""The gradient maps equal captum's in float64, and what can be computed by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cnn_jax.visualize import gradients

pytestmark = pytest.mark.usefixtures("float64")


def distance(ours, theirs):
    """The largest difference, relative to the largest value."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def test_the_networks_compute_the_references_logits(case, reference, network):
    assert distance(network(case)(reference["images"]), case["logits"]) < 1e-14


@pytest.mark.parametrize(
    "method", ["gradient", "gradient_times_input", "guided_backprop", "deconvnet"]
)
def test_maps_equal_captums(method, case, reference, network):
    f, images, targets = network(case), reference["images"], reference["targets"]
    ours = getattr(gradients, method)(f, images, targets)
    assert distance(ours, case[method]) < 1e-10


@pytest.mark.parametrize("batch_size", [50, 7])
def test_integrated_gradients_equal_captums(batch_size, case, reference, network):
    f, images, targets = network(case), reference["images"], reference["targets"]
    ours = gradients.integrated_gradients(f, images, targets, batch_size=batch_size)
    assert distance(ours, case["integrated_gradients"]) < 1e-8
    start = reference["baseline"]
    ours = gradients.integrated_gradients(f, images, targets, baseline=start, batch_size=batch_size)
    assert distance(ours, case["integrated_gradients_from"]) < 1e-8


def test_saliency_is_the_largest_magnitude_of_the_channels(case, reference, network):
    ours = gradients.saliency(network(case), reference["images"], reference["targets"])
    np.testing.assert_allclose(ours, np.abs(case["gradient"]).max(axis=-1), rtol=1e-10)


def polynomial(x):
    """Two logits of an image of three pixels: x0^3 + x0 x1 x2, and the sum."""
    a, b, c = (x[:, 0, i, 0] for i in range(3))
    return jnp.stack([a**3 + a * b * c, a + b + c], axis=1)


IMAGE = np.array([1.0, -2.0, 3.0]).reshape(1, 1, 3, 1)


def test_maps_of_a_polynomial_by_hand():
    """d/da = 3 a^2 + b c = 3 - 6, d/db = a c = 3, d/dc = a b = -2."""
    slope = gradients.gradient(polynomial, IMAGE, [0]).ravel()
    assert slope.tolist() == [-3, 3, -2]
    assert gradients.saliency(polynomial, IMAGE, [0]).ravel().tolist() == [3, 3, 2]
    product = gradients.gradient_times_input(polynomial, IMAGE, [0]).ravel()
    assert product.tolist() == [-3, -6, -6]


def test_integrated_gradients_of_a_polynomial_are_exact():
    """From black, a^3 stays with a, and each factor of a b c gets a third of it."""
    ours = gradients.integrated_gradients(polynomial, IMAGE, [0], steps=2).ravel()
    np.testing.assert_allclose(ours, [1 - 2, -2, -2], rtol=1e-14)
    # complete: they add up to the difference of the scores, here from a grey baseline too
    ours = gradients.integrated_gradients(polynomial, IMAGE, [0], baseline=0.5, steps=2)
    gain = polynomial(IMAGE) - polynomial(np.full_like(IMAGE, 0.5))
    np.testing.assert_allclose(ours.sum(), gain[0, 0], rtol=1e-14)


def test_a_rectified_unit_by_hand():
    """y = 2 relu(x0 - x1) - 3 relu(x1) - relu(-x0) at (5, 1): all but the last ReLU are on."""

    def f(images):
        a, b = images[:, 0, 0, 0], images[:, 0, 1, 0]
        relu = jax.nn.relu
        return (2 * relu(a - b) - 3 * relu(b) - relu(-a))[:, None]

    image = jnp.array([5.0, 1.0]).reshape(1, 1, 2, 1)
    assert gradients.gradient(f, image, [0]).ravel().tolist() == [2, -5]
    assert gradients.guided_backprop(f, image, [0]).ravel().tolist() == [2, -2]
    assert gradients.deconvnet(f, image, [0]).ravel().tolist() == [2, -2]
    image = jnp.array([1.0, 5.0]).reshape(1, 1, 2, 1)  # now the first ReLU is off
    assert gradients.gradient(f, image, [0]).ravel().tolist() == [0, -3]
    assert gradients.guided_backprop(f, image, [0]).ravel().tolist() == [0, 0]
    assert gradients.deconvnet(f, image, [0]).ravel().tolist() == [2, -2]


def test_smooth_grad_is_the_mean_gradient_over_copies_with_the_documented_noise(reference, network):
    f = network({"name": "plain"} | reference["plain"])
    images, targets, key = jnp.asarray(reference["images"]), reference["targets"], jax.random.key(3)
    ours = gradients.smooth_grad(f, images, targets, key, samples=5, noise=0.2)
    for i, image in enumerate(images):
        drawn = jax.random.normal(jax.random.fold_in(key, i), (5, *image.shape), image.dtype)
        copies = image + 0.2 * (image.max() - image.min()) * drawn
        slopes = gradients.gradient(f, copies, np.full(5, targets[i]))
        np.testing.assert_allclose(ours[i], slopes.mean(axis=0), rtol=1e-12, atol=1e-14)


def test_neither_the_batch_nor_the_other_images_change_a_map(reference, network):
    f = network({"name": "plain"} | reference["plain"])
    images, targets, key = reference["images"], reference["targets"], jax.random.key(0)
    smooth = partial(gradients.smooth_grad, f, samples=10)
    whole = smooth(images, targets, key)
    assert jnp.array_equal(whole, smooth(images, targets, key))
    np.testing.assert_allclose(whole, smooth(images, targets, key, batch_size=3), rtol=1e-12)
    np.testing.assert_allclose(whole[:1], smooth(images[:1], targets[:1], key), rtol=1e-12)


def test_other_weights_need_no_other_compilation():
    traced = []

    def apply(weights, images):
        traced.append(1)
        return images.reshape(len(images), -1) @ weights

    images = jnp.ones((2, 2, 2, 1))
    for scale in (1.0, 2.0, 3.0):
        f = Partial(apply, scale * jnp.ones((4, 3)))
        slope = gradients.gradient(f, images, [0, 1])
        assert jnp.array_equal(slope, scale * jnp.ones_like(images))
    assert len(traced) == 1
