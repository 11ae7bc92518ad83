"""Verdicts from the pixels alone, and accuracy against the budget."""

import jax
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks import loop, registry, robustness

KEY = jax.random.key(0)


def test_only_what_is_read_rightly_is_attacked_and_with_its_own_randomness(case):
    pgd = registry.find("pgd")
    options = {"eps": 0.1, "norm": "linf", "steps": 3}
    found = robustness.attack_right_ones(
        pgd, case.logits_of, case.images, case.labels, KEY, **options
    )
    np.testing.assert_array_equal(found[0], case.images[0])
    whole = pgd.function(case.logits_of, case.images, case.labels, KEY, **options)
    np.testing.assert_array_equal(found[1:], whole[1:])


def test_the_verdict(case):
    moved = case.images.copy()
    moved[2] = case.images[0]  # another image altogether
    verdict = robustness.judge(case.logits_of, case.images, moved, case.labels)
    before = loop.predictions(case.logits_of, case.images)
    np.testing.assert_array_equal(verdict.before, before)
    np.testing.assert_array_equal(verdict.fooled, verdict.after != case.labels)
    assert verdict.fooled[0]
    np.testing.assert_allclose(verdict.probabilities_after.sum(axis=1), 1)
    np.testing.assert_array_equal(np.flatnonzero(verdict.sizes["linf"]), [2])
    delta = moved[2] - case.images[2]
    assert verdict.sizes["l2"][2] == pytest.approx(np.linalg.norm(delta))


def test_on_a_plane_the_curve_falls_where_the_distances_say(linear):
    """FGSM is optimal there, and DeepFool overshoots by two percent."""
    distance = linear.margin / np.abs(linear.slope).sum()
    epsilons = sorted([*(0.9 * distance), *(1.1 * distance)])
    expected = [distance > eps for eps in epsilons]
    for name in ("fgsm", "deepfool"):
        found = robustness.correct_under_attack(
            registry.find(name),
            linear.logits_of,
            linear.images,
            linear.labels,
            KEY,
            epsilons,
            norm="linf",
        )
        np.testing.assert_array_equal(found, expected)


def test_what_cannot_be_attacked_is_told(case):
    pgd, deepfool = registry.find("pgd"), registry.find("deepfool")
    misread = (loop.predictions(case.logits_of, case.images) + 1) % 10
    with pytest.raises(UsageError, match="misreads all 6 images"):
        robustness.attack_right_ones(pgd, case.logits_of, case.images, misread, KEY, eps=0.1)
    with pytest.raises(UsageError, match="no targeted form"):
        robustness.attack_right_ones(
            deepfool, case.logits_of, case.images, case.labels, KEY, targets=case.targets
        )
    with pytest.raises(UsageError, match="is its own class"):
        robustness.attack_right_ones(
            pgd, case.logits_of, case.images, case.labels, KEY, eps=0.1, targets=case.labels
        )
    with pytest.raises(UsageError, match="ascending"):
        robustness.correct_under_attack(
            pgd, case.logits_of, case.images, case.labels, KEY, [0.2, 0.1], norm="linf"
        )


def test_the_accuracy_under_all_attacks_is_that_of_the_images_that_resist_each(linear):
    distance = linear.margin / np.abs(linear.slope).sum()
    eps = float(np.sort(distance)[2] * 0.9)  # two images are nearer
    found = robustness.accuracy_under_attacks(
        {name: registry.find(name) for name in ("fgsm", "deepfool")},
        linear.logits_of,
        linear.images,
        linear.labels,
        KEY,
        [2 * float(distance.max())],
        eps=eps,
        norm="linf",
    )
    assert (found["examples"], found["clean_accuracy"], found["doubts"]) == (7, 1, [])
    assert found["robust_accuracy"] == 5 / 7
    assert found["curve"] == {
        "eps": [0, eps, 2 * float(distance.max())],
        "accuracy": [1, 5 / 7, 0],
    }
    assert {each["robust_accuracy"] for each in found["attacks"].values()} == {5 / 7}
