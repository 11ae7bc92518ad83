"""Fooling images: certain to the network, by gradient and without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.visualize import fooling

CLASSES, SHAPE = 4, (6, 6, 1)
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=(36, CLASSES)), jnp.float32)
KEY = jax.random.key(0)


def classifier(images):
    return 2 * (images - 0.5).reshape(len(images), -1) @ WEIGHTS


def rounded(images):
    """The same, of pixels in eight steps: its gradient is nought."""
    return classifier(jnp.round(images * 7) / 7)


def first_pixels(images):
    return images[:, 0, :CLASSES, 0]


def test_by_gradient_every_class_is_reached_from_noise():
    noise = jax.random.uniform(KEY, (CLASSES, *SHAPE))
    targets = jnp.arange(CLASSES)
    found = fooling.by_gradient(classifier, targets, noise, steps=60)
    assert np.all(found.confidence > 0.99)
    assert np.all((found.images >= 0) & (found.images <= 1))
    np.testing.assert_allclose(
        found.confidence, fooling.confidences(classifier, found.images, targets), rtol=1e-6
    )
    np.testing.assert_allclose(
        found.history[0], fooling.confidences(classifier, noise, targets), rtol=1e-5
    )


def test_a_fantasy_image_stays_near_its_photograph():
    photo = jnp.broadcast_to(jax.random.uniform(KEY, (1, *SHAPE)), (CLASSES, *SHAPE))
    found = fooling.by_gradient(
        classifier, jnp.arange(CLASSES), photo, learning_rate=0.02, steps=15
    )
    assert np.abs(found.images - photo).max() <= 0.02 * 15 + 1e-5
    assert np.all(found.confidence > found.history[0])


def test_evolution_needs_no_gradient_and_never_falls_back():
    found = fooling.by_evolution(rounded, CLASSES, SHAPE, KEY, generations=300, children=32)
    assert np.all(found.confidence > 0.95)
    assert np.all(np.diff(found.history, axis=0) >= 0)
    np.testing.assert_allclose(
        found.confidence, fooling.confidences(rounded, found.images, jnp.arange(CLASSES)), rtol=1e-5
    )
    slope = jax.grad(lambda x: rounded(x).sum())(found.images)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("mutation", fooling.MUTATIONS)
def test_evolution_finds_the_targets_in_their_order(mutation):
    targets = jnp.array([2, 0])
    found = fooling.by_evolution(
        classifier, CLASSES, SHAPE, KEY,
        targets=targets, generations=100, children=16, mutation=mutation,
    )  # fmt: skip
    assert found.images.shape == (2, *SHAPE)
    assert found.history.shape == (100, 2)
    np.testing.assert_allclose(
        found.confidence, fooling.confidences(classifier, found.images, targets), rtol=1e-5
    )
    assert np.all(found.confidence > 0.9)


def test_images_go_to_the_class_that_lacks_confidence():
    """Of confidences .99 and .04, 1.05 less each is .06 and 1.01, and so are their parts."""
    elites = jnp.stack([jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1))])
    state = elites, jnp.log(jnp.array([0.99, 0.04])), jnp.zeros((1, 2))
    seen = []

    def f(images):
        seen.extend(np.ravel(images))
        return jnp.zeros((len(images), 2))

    places, targets = jnp.zeros(2000), jnp.arange(2)
    fooling._generation(lambda key, image, done: image, 0, state, f, KEY, places, targets)
    assert len(seen) == 2000
    np.testing.assert_allclose(np.mean(seen), 1.01 / 1.07, atol=0.02)  # four standard deviations


def test_a_square_changes_as_a_whole():
    settings = {"generations": 1, "children": 1, "mutation": "squares"}
    image = fooling.by_evolution(first_pixels, CLASSES, (40, 40, 3), KEY, **settings).images[0]
    changed = np.asarray((image != 0.5).any(-1))
    rows, columns = changed.any(1), changed.any(0)
    np.testing.assert_array_equal(changed, np.outer(rows, columns))
    assert 0 < changed.sum() < 40 * 40
    assert len(np.unique(image[changed], axis=0)) == 1


def test_a_wave_is_the_same_in_every_channel_but_for_its_height():
    settings = {"generations": 1, "children": 1, "mutation": "waves"}
    image = fooling.by_evolution(first_pixels, CLASSES, (40, 40, 3), KEY, **settings).images[0]
    unclipped = np.asarray(((image > 0) & (image < 1)).all(-1))
    first, *others = np.linalg.svd(np.asarray(image - 0.5)[unclipped], compute_uv=False)
    assert first > 0.1
    np.testing.assert_allclose(others, 0, atol=1e-5)


def test_an_unknown_mutation_is_refused():
    with pytest.raises(UsageError, match="squares"):
        fooling.by_evolution(classifier, CLASSES, SHAPE, KEY, mutation="square")


def test_evolution_repeats_bit_for_bit():
    runs = [
        fooling.by_evolution(rounded, CLASSES, SHAPE, KEY, generations=20, children=8)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0].images, runs[1].images)
