"""Gradient ascent: judged by the score it reaches, on a function whose best image is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.visualize import ascent, image_transforms, regularizers
from tests.visualize.synthesis import reference

SHAPE = (3, 16, 16, 3)
random = np.random.default_rng(2)
WEIGHTS = jnp.asarray(random.normal(size=(16 * 16 * 3, 3)), jnp.float32)
KERNEL = jnp.asarray(random.normal(size=(5, 5, 3, 3)), jnp.float32)


def linear(images):
    return (images - 0.5).reshape(len(images), -1) @ WEIGHTS


def feature_map(images):
    return jax.nn.relu(ops.conv(images - 0.5, KERNEL))


CLASSES = ascent.channel(np.arange(3))


def test_from_zeros_the_image_is_the_known_optimum():
    found = ascent.simonyan(linear, CLASSES, SHAPE, l2_weight=2.0, learning_rate=0.5, steps=150)
    np.testing.assert_allclose(found.start, 0, atol=1e-6)
    # of w.x - 2 ||x||^2 in the box |x| <= 1/2
    best = jnp.clip(WEIGHTS.T.reshape(SHAPE) / 4, -0.5, 0.5)
    optimum = jnp.sum(WEIGHTS.T.reshape(SHAPE) * best, axis=(1, 2, 3)) - 2 * regularizers.l2(best)
    reached = found.score - 2 * regularizers.l2(found.images - 0.5)
    assert np.all(reached > 0.98 * optimum)


def test_blur_and_variation_take_away_fine_grain():
    def grain(**options):
        found = ascent.simonyan(linear, CLASSES, SHAPE, steps=30, **options)
        assert np.all(found.score > found.start)
        return regularizers.total_variation(found.images) / regularizers.l2(found.images - 0.5)

    plain = grain()
    assert np.all(grain(blur=0.7) < 0.5 * plain)
    assert np.all(grain(variation_weight=5.0) < 0.8 * plain)


@pytest.fixture(scope="module")
def under_transforms():
    return ascent.lucid(feature_map, CLASSES, SHAPE, jax.random.key(0), steps=60)


def test_a_spectrum_reaches_a_multiple_of_the_start(under_transforms):
    assert np.all(under_transforms.score > 5 * under_transforms.start)
    assert np.all((under_transforms.images >= 0) & (under_transforms.images <= 1))
    assert under_transforms.history.shape == (60, 3)


def test_what_was_reached_holds_under_transformations_not_used_in_the_ascent(under_transforms):
    unseen = image_transforms.random_affine((0.7, 0.8), (15.0, 25.0))
    key = jax.random.key(9)
    grey = jnp.full(SHAPE, 0.5)
    args = (feature_map, CLASSES)
    noise = jax.random.uniform(key, SHAPE)
    held = ascent.under_transformations(*args, under_transforms.images, unseen, key)
    assert np.all(held > 0.4 * under_transforms.score)
    assert np.all(held > 1.5 * ascent.under_transformations(*args, noise, unseen, key))
    assert np.all(held > ascent.under_transformations(*args, grey, unseen, key))


def test_it_repeats_bit_for_bit(under_transforms):
    again = ascent.lucid(feature_map, CLASSES, SHAPE, jax.random.key(0), steps=60)
    np.testing.assert_array_equal(again.images, under_transforms.images)


def test_diversity_is_lucids(float64):
    case = reference("diversity")
    terms = ascent.diversity(jnp.asarray(case["activation"]))
    np.testing.assert_allclose(terms.mean(), case["value"], rtol=1e-12)


@pytest.mark.slow
def test_diverse_images_of_one_channel_differ_more():
    objective = ascent.channel(np.zeros(3, int))

    def styles(weight):
        found = ascent.lucid(
            feature_map,
            objective,
            SHAPE,
            jax.random.key(0),
            steps=40,
            diverse=feature_map,
            diversity_weight=weight,
        )
        return float(ascent.diversity(feature_map(found.images)).mean())

    assert styles(10.0) > styles(0.0) + 0.05


def test_the_objectives_by_hand():
    activation = jnp.arange(2 * 3 * 5 * 2.0).reshape(2, 3, 5, 2)
    np.testing.assert_allclose(ascent.channel([0, 1])(activation), [14, 45])
    np.testing.assert_allclose(ascent.neuron([0, 1])(activation), [14, 45])
    np.testing.assert_allclose(ascent.neuron([0, 1], 0, 1)(activation), [2, 33])
    np.testing.assert_allclose(ascent.layer(activation[:1, :1, :1]), [0.25])
    np.testing.assert_allclose(ascent.channel([1])(jnp.array([[3.0, 4.0]])), [4])


def test_redirected_gradients_wake_a_unit_that_is_off():
    x = jnp.array([[-1.0, -2.0], [-1.0, 2.0]])
    g = jnp.array([[-3.0, 5.0], [-3.0, 5.0]])  # of what is minimised
    np.testing.assert_array_equal(ascent.redirected_relu(x, g), [[-3, 0], [0, 5]])


def test_another_rule_may_begin():
    dead = jnp.asarray(-np.abs(random.normal(size=(1, 16 * 16 * 3))), jnp.float32)

    def unit(rule):
        return lambda x: ops.relu((x - 0.5).reshape(1, -1) @ dead.T, rule)

    def run(**options):
        return ascent.ascend(
            unit("gradient"),
            ascent.channel([0]),
            ascent.image_parameterization.pixels((1, 16, 16, 3)),
            jnp.full((1, 16, 16, 3), 0.1),
            optimizer=ascent.optax.sgd(0.01),
            steps=20,
            **options,
        )

    assert run().score == 0
    assert run(first=(unit(ascent.redirected_relu), 16)).score > 0


def test_contrast_is_stretched_to_the_full_range_and_never_lowered():
    faint = 0.5 + jnp.linspace(-0.01, 0.03, 16 * 16 * 3).reshape(1, 16, 16, 3)
    images = jnp.concatenate([faint, jnp.linspace(0, 1, 768).reshape(faint.shape)])
    shown = ascent.stretched(images)
    assert shown[0].max() == 1
    np.testing.assert_allclose(shown[0, 0, 0, 0], 0.5 - 0.5 / 2.96, atol=0.01)
    np.testing.assert_allclose(shown[1], images[1], atol=0.01)
    np.testing.assert_array_equal(ascent.stretched(jnp.full((1, 2, 2, 3), 0.5)), 0.5)


def test_larger_images_gain_contrast_as_fast():
    def contrast(side):
        shape = (1, side, side, 3)
        ramp = jnp.linspace(-1, 1, side * side * 3).reshape(-1, 1)
        found = ascent.simonyan(
            lambda x: (x - 0.5).reshape(1, -1) @ ramp, ascent.channel([0]), shape,
            l2_weight=0.0, steps=10,
        )  # fmt: skip
        return float(jnp.std(found.images))

    assert contrast(64) == pytest.approx(contrast(16), rel=0.05)
