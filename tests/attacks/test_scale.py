"""Large logits, and what else takes a gradient away, must not look like robustness."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.attacks import masking, registry, robustness, universal
from cnn_jax.attacks.loop import predictions
from cnn_jax.attacks.training import divergence, divergence_ascent, perturbed
from cnn_jax.tasks import segmentation
from cnn_jax.tasks.classification import cross_entropy, log_odds_against
from cnn_jax.training.task import localization_odds, segmentation_odds
from tests.attacks.conftest import small_network

KEY = jax.random.key(0)
SHORT = {
    "fgsm": {"norm": "linf"},
    "pgd": {"norm": "l2", "steps": 10},
    "apgd": {"norm": "linf", "steps": 15},
    "apgd_dlr": {"norm": "l2", "steps": 15},
    "apgd_targeted": {"norm": "linf", "steps": 5},
    "square": {"norm": "linf", "steps": 50},
    "ddn": {"norm": "l2", "steps": 40},
    "fab": {"norm": "l2", "steps": 10, "most_targets": 3},
}
SLOW = ("apgd_dlr", "apgd_targeted", "square", "fab")
EPS = {"linf": 0.03, "l2": 0.25}


@pytest.fixture(autouse=True)
def float32(float64):
    with jax.enable_x64(False):
        yield


def scaled_network(weights, scale, images):
    return scale * small_network(weights, images)


@pytest.fixture(scope="module")
def scaled(references):
    """scaled(factor): the small network with a head that many times as large, in float32."""
    names = ("conv1", "bias1", "conv2", "bias2", "head")
    weights = {name: references[f"network/{name}"].astype(np.float32) for name in names}
    return lambda factor: jax.tree_util.Partial(scaled_network, weights, np.float32(factor))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(7).uniform(size=(40, 7, 7, 3)).astype(np.float32)


def correct(attack, logits_of, images, labels, **options):
    norm = options["norm"]
    with jax.enable_x64(False):
        found = robustness.correct_under_attack(
            registry.find(attack), logits_of, images, labels, KEY, [EPS[norm]], **options
        )
    return found.mean()


@pytest.mark.parametrize(
    "attack",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SHORT],
)
def test_a_head_times_100_or_10000_is_no_more_robust(scaled, images, attack):
    labels = predictions(scaled(1), images)
    before, hundred, most = (
        correct(attack, scaled(factor), images, labels, **SHORT[attack]) for factor in (1, 1e2, 1e4)
    )
    assert before < 0.9
    assert hundred <= before
    assert most == pytest.approx(hundred, abs=1 / 40 + 1e-6)


def test_towards_a_target_too(scaled, images):
    labels = predictions(scaled(1), images)
    targets = (labels + 1) % 10
    reached = []
    for factor in (1, 1e2, 1e4):
        found = registry.find("pgd").function(
            scaled(factor), images, labels, KEY, eps=0.06, norm="linf", targets=targets
        )
        reached.append((predictions(scaled(factor), found) == targets).mean())
    assert min(reached) > 0.3
    np.testing.assert_allclose(reached, reached[0], atol=0.1)


@pytest.mark.parametrize("adversary", ["pgd", "fast", "trades"])
def test_adversaries_of_the_training_are_as_strong_against_large_logits(scaled, images, adversary):
    labels = predictions(scaled(1), images)
    options = {"adversary": adversary, "eps": 0.03, "steps": 5}

    @jax.jit
    def moved(logits_of):
        loss_of = partial(_odds, label=labels)
        return perturbed(logits_of, loss_of, jnp.asarray(images), KEY, **options)

    fooled = [
        (predictions(scaled(factor), np.asarray(moved(scaled(factor)))) != labels).mean()
        for factor in (1, 1e2, 1e4)
    ]
    assert fooled[0] > 0.2
    assert min(fooled[1:]) >= fooled[0]


def _odds(logits, label):
    return log_odds_against(logits, label).sum()


def test_a_universal_perturbation_is_found_where_the_cross_entropy_is_flat(scaled, images):
    network = scaled(1e4)
    labels = predictions(network, images)
    sure = np.asarray(log_odds_against(network(images), labels)) < -500
    images, labels = images[sure], labels[sure]
    flat = jax.grad(lambda x: cross_entropy(network(x), labels).sum())(images)
    assert len(images) > 20
    assert not flat.any()
    found = universal.universal_sgd(network, images, KEY, eps=0.08)
    assert universal.fooling_rate(network, images, found) > 0.3


def test_the_cross_entropy_is_the_softplus_of_the_log_odds():
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(20, 5)) * 4)
        label = np.arange(20) % 5
        odds = log_odds_against(logits, label)
        np.testing.assert_allclose(
            jax.nn.softplus(odds), cross_entropy(logits, label), rtol=1e-12, atol=1e-14
        )
        slopes = (
            jax.grad(lambda x, f=f: f(x, label).sum())(logits)
            for f in (log_odds_against, cross_entropy)
        )
        ours, theirs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in slopes)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_the_divergence_is_climbed_along_its_gradient_and_where_that_is_lost():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        p, q = jnp.asarray(rng.normal(size=(2, 20, 5)) * 3)
        slope = jax.grad(lambda q: divergence(p, q).sum())(q)
        expected = 2 * slope / jnp.abs(slope).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(divergence_ascent(p, q), expected, rtol=1e-9, atol=1e-12)
    # in the second place, of 1e-87 and 1e-130, the network has moved towards the second class
    p, q = jnp.array([[0.0, -300, -400]]), jnp.array([[0.0, -200, -300]])
    assert not jax.grad(lambda q: divergence(p, q).sum())(q).any()
    np.testing.assert_allclose(divergence_ascent(p, q), [[-1, 1, 0]], atol=1e-6)
    np.testing.assert_array_equal(divergence_ascent(p, p), np.zeros((1, 3)))


def rounded(logits_of, images):
    return logits_of(jnp.round(images * 40) / 40)


def test_vanished_gradients_are_counted_and_those_of_large_logits_have_not(scaled, images):
    labels = predictions(scaled(1), images)
    masked = jax.tree_util.Partial(rounded, scaled(1))
    assert masking.without_gradient(masked, images, labels).all()
    assert not masking.without_gradient(scaled(1e4), images, labels).any()
    assert masking.vanishing(np.array([False, False])) == []
    (told,) = masking.vanishing(np.array([True, False, True]))
    assert "vanishes on 2 of 3 images" in told


def test_what_the_black_box_attack_alone_fools_is_told():
    by_gradient = np.array([True, True, False, True])
    assert masking.black_box_gain(by_gradient, by_gradient) == []
    assert masking.black_box_gain(by_gradient, np.array([True, True, True, True])) == []
    (told,) = masking.black_box_gain(by_gradient, np.array([True, False, True, True]))
    assert "fooled 25.0%" in told


def test_what_adversaries_climb_has_a_gradient_in_segmentation_and_localisation_too():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (2, 4, 4))
    logits = 1e4 * jax.nn.one_hot(mask, 3) + rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    mask[:, 0] = segmentation.IGNORED
    slope = jax.grad(segmentation_odds)(logits, {"mask": mask})
    assert not slope[:, 0].any()
    np.testing.assert_allclose(jnp.abs(slope[:, 1:]).sum(axis=-1), 2, rtol=1e-6)

    label, boxes = np.array([0, 2]), np.array([[[0, 0, 0.5, 0.5]], [[0, 0, 1, 1]]], np.float32)
    outputs = {"logits": 1e4 * jax.nn.one_hot(label, 3), "boxes": jnp.full((2, 1, 4), 0.25)}
    batch = {"label": label, "boxes": boxes}
    slope = jax.grad(localization_odds)(outputs, batch)
    np.testing.assert_allclose(jnp.abs(slope["logits"]).sum(axis=-1), 2, rtol=1e-6)
    assert slope["boxes"].any()
