"""Feature inversion: what is invertible is inverted, and what is lost is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.visualize import inversion

random = np.random.default_rng(3)
IMAGES = random.uniform(size=(2, 8, 8, 3))
KERNEL = random.normal(size=(3, 3, 3, 8)) / 5
DEEPER = random.normal(size=(3, 3, 8, 4)) / 8


def convolution(images):
    """More numbers out than in, at a kernel of full rank: nothing is lost."""
    return ops.conv(images - 0.5, jnp.asarray(KERNEL, images.dtype))


def layers(images):
    first = jax.nn.leaky_relu(convolution(images), 0.2)
    second = jax.nn.relu(ops.conv(first, jnp.asarray(DEEPER, images.dtype), stride=2))
    return {"first": first, "second": second, "pool": second.mean(axis=(1, 2))}


def no_penalty(images):
    return jnp.zeros(len(images), images.dtype)


def test_normalized_error_by_hand():
    target = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    error = inversion.normalized_error(target + 1, target)
    np.testing.assert_allclose(error, [2 / 25, 2])  # of nothing, the plain square


def test_natural_image_is_the_papers_penalty_as_a_mean():
    images = jnp.array([[[[0.5], [1.0]]]])  # 0 and 1 once centred
    penalty = inversion.natural_image(alpha_weight=2.0, variation_weight=3.0)
    np.testing.assert_allclose(penalty(images), [(2 * 1 + 3 * 1) / 2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_invertible_layer_inverts_to_under_a_millionth(dtype):
    with jax.enable_x64(dtype == "float64"):
        images = jnp.asarray(IMAGES, dtype)
        start = inversion.noise(jax.random.key(0), images.shape).astype(dtype)
        target = convolution(images)
        found = inversion.invert(convolution, target, start, regularizer=no_penalty, steps=80)
        assert found.images.dtype == dtype
        assert np.all(np.asarray(found.error) < 1e-6)
        # not only the features: the very image
        np.testing.assert_allclose(found.images, images, atol=1e-2)


@pytest.mark.parametrize("optimizer", [inversion.adam(0.05, 100), inversion.momentum(0.5, 100)])
def test_the_other_optimisers_get_there_too(optimizer):
    images = jnp.asarray(IMAGES, jnp.float32)
    found = inversion.invert(
        convolution,
        convolution(images),
        inversion.noise(jax.random.key(0), images.shape),
        regularizer=no_penalty,
        optimizer=optimizer,
        steps=100,
    )
    assert np.all(found.error < 0.05 * found.history[0])


def every_layer(steps=40, **options):
    return inversion.invert_layers(
        layers,
        ["first", "second", "pool"],
        jnp.asarray(IMAGES, jnp.float32),
        jax.random.key(0),
        variation_weights=(1e-5, 1e-3),
        steps=steps,
        **options,
    )


@pytest.fixture(scope="module")
def inverted():
    return every_layer()


def test_every_layer_in_one_run(inverted):
    images = jnp.asarray(IMAGES, jnp.float32)
    assert list(inverted) == ["first", "second", "pool"]
    for path, each in inverted.items():
        error = inversion.normalized_error(layers(each.images)[path], layers(images)[path])
        np.testing.assert_allclose(each.error, error, rtol=1e-4, atol=1e-7)
        # the second starts with ReLUs that are off where they should be on and get no gradient
        assert np.all(each.error < (0.2 if path == "second" else 0.01))
    # all that the pool keeps is a mean of each channel: the image cannot come back
    distance = {path: float(jnp.std(each.images - images)) for path, each in inverted.items()}
    assert distance["first"] < 0.05 < distance["second"] < distance["pool"]


def test_it_repeats_bit_for_bit(inverted):
    for path, each in every_layer().items():
        np.testing.assert_array_equal(each.images, inverted[path].images)


def test_batches_change_nothing_but_rounding(inverted):
    for path, each in every_layer(steps=10, batch_size=4).items():
        np.testing.assert_allclose(each.history, inverted[path].history[:10], rtol=1e-3)


@pytest.mark.slow
def test_spectra_take_more_steps_the_deeper_a_layer_and_repeat():
    y, x = jnp.meshgrid(*[jnp.linspace(0.2, 0.8, 16)] * 2, indexing="ij")
    images = jnp.stack([jnp.stack([x, y, 1 - x], -1), jnp.stack([y * x, 1 - y, x], -1)])
    found, again = (
        inversion.invert_by_spectra(
            layers,
            ["first", "second", "pool"],
            images,
            jax.random.key(0),
            steps=(30, 120),
            learning_rate=0.2,
        )
        for _ in range(2)
    )
    assert [len(each.history) for each in found.values()] == [30, 60, 120]
    for path, each in found.items():
        assert each.images.shape == images.shape
        assert np.all((each.images > 0) & (each.images < 1))
        expected = inversion.normalized_error(layers(each.images)[path], layers(images)[path])
        np.testing.assert_allclose(each.error, expected, rtol=1e-4, atol=1e-8)
        assert np.all(each.error < 0.5 * each.history[0])
        np.testing.assert_array_equal(each.images, again[path].images)
