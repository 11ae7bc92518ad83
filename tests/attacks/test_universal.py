"""Universal perturbations: on planes that share a direction, and of the small network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks import universal
from cnn_jax.attacks.deepfool import deepfool
from cnn_jax.attacks.loop import Batching

KEY = jax.random.key(0)
METHODS = {"deepfool": universal.universal_deepfool, "sgd": universal.universal_sgd}


@pytest.fixture(scope="module")
def one_sided(linear):
    """Images on one side of the plane, so that one direction fools them all."""
    side = linear.labels == 1
    return linear.images[side], linear.margin[side]


@pytest.mark.parametrize("method", METHODS)
def test_it_finds_the_direction_that_all_images_share(linear, one_sided, method):
    images, margin = one_sided
    eps = 1.2 * float(margin.max()) / np.abs(linear.slope).sum()
    found = METHODS[method](linear.logits_of, images, KEY, eps=eps)
    assert np.abs(found).max() <= eps * (1 + 1e-12)
    assert (found * linear.slope).sum() < 0
    assert universal.fooling_rate(linear.logits_of, images, found) >= 0.8


@pytest.mark.parametrize("method", METHODS)
def test_it_fools_more_than_noise_of_the_same_size_on_images_it_has_not_seen(case, method):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(60, 7, 7, 3))
    eps = 0.08
    found = METHODS[method](case.logits_of, images[:40], KEY, eps=eps)
    noise = eps * np.sign(rng.normal(size=found.shape))
    fooled, by_noise = (
        universal.fooling_rate(case.logits_of, images[40:], each) for each in (found, noise)
    )
    assert fooled > 1.5 * by_noise


def test_deepfool_is_given_images_that_are_not_fooled_and_enough_of_them(case, monkeypatch):
    images = np.random.default_rng(0).uniform(size=(40, 7, 7, 3))
    given = []

    def spy(logits_of, moved, classes, **options):
        given.append((np.argmax(logits_of(moved), axis=1) == classes).tolist())
        return deepfool(logits_of, moved, classes, **options)

    monkeypatch.setattr(universal, "deepfool", spy)
    universal.universal_deepfool(case.logits_of, images, KEY, eps=0.08, epochs=2, together=6)
    assert all(map(all, given))
    assert sum(map(len, given)) < 2 * len(images)
    assert sum(len(each) < 6 for each in given) <= 2  # what is left of each pass


def test_the_sgd_form_is_the_same_on_any_number_of_devices(case):
    images = np.random.default_rng(0).uniform(size=(13, 7, 7, 3))
    one, eight = (
        universal.universal_sgd(case.logits_of, images, KEY, eps=0.05, epochs=2, batching=batching)
        for batching in (Batching(8), Batching(8, tuple(jax.devices())))
    )
    np.testing.assert_allclose(one, eight, rtol=0, atol=1e-14)


def test_transfer_is_a_matrix_of_fooling_rates(case):
    images = case.images
    networks = {"a": case.logits_of, "b": lambda x: -case.logits_of(x)}
    perturbations = {"none": np.zeros((7, 7, 3)), "white": np.ones((7, 7, 3))}
    found = universal.transfer(networks, perturbations, images)
    assert found.shape == (2, 2)
    np.testing.assert_array_equal(found[0], 0)
    white = jnp.ones((1, 7, 7, 3))
    same = np.argmax(case.logits_of(white)) == np.argmax(case.logits_of(images), axis=1)
    assert found[1, 0] == pytest.approx((~same).mean())


def test_no_image_and_a_budget_out_of_place_are_told(case):
    with pytest.raises(UsageError, match="no image"):
        universal.universal_sgd(case.logits_of, case.images[:0], KEY, eps=0.1)
    with pytest.raises(UsageError, match="10/255"):
        universal.universal_deepfool(case.logits_of, case.images, KEY, eps=10)
