"""Auto-PGD: the authors' points after 7, 30 and 100 steps from the same start."""

import jax
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks.apgd import apgd, apgd_targeted, likeliest_others
from cnn_jax.attacks.loop import Batching, predictions

KEY = jax.random.key(0)
EPS = {"linf": 0.03, "l2": 0.25}


@pytest.mark.parametrize("steps", [7, 30, 100])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", EPS)
def test_equals_the_authors(case, references, norm, loss, steps):
    found = apgd(
        case.logits_of,
        case.images,
        case.labels,
        eps=EPS[norm],
        norm=norm,
        loss=loss,
        steps=steps,
        start=references[f"apgd/{norm}/start"],
    )
    fooled = predictions(case.logits_of, found) != case.labels
    np.testing.assert_array_equal(fooled, references[f"apgd/{norm}/{loss}/{steps}/fooled"])
    # of a label in the third place the ratio is 1, and its gradient nothing but rounding
    same = ~fooled if loss == "dlr" else np.ones(6, bool)
    expected = references[f"apgd/{norm}/{loss}/{steps}/images"]
    np.testing.assert_allclose(found[same], expected[same], rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [7, 30, 100])
@pytest.mark.parametrize("norm", EPS)
def test_towards_a_target_equals_the_authors(case, references, norm, steps):
    found = apgd(
        case.logits_of,
        case.images,
        case.labels,
        eps=EPS[norm],
        norm=norm,
        loss="dlr",
        steps=steps,
        start=references[f"apgd/{norm}/start"],
        targets=case.targets,
    )
    # theirs counts any wrong class as success: compare where there was none
    same = ~references[f"apgd/{norm}/dlr_targeted/{steps}/fooled"]
    assert same.sum() == 5
    expected = references[f"apgd/{norm}/dlr_targeted/{steps}/images"]
    np.testing.assert_allclose(found[same], expected[same], rtol=0, atol=1e-10)


def test_a_target_is_reached_where_the_budget_is_large(case):
    found = apgd(
        case.logits_of,
        case.images,
        case.labels,
        KEY,
        eps=0.5,
        steps=30,
        targets=case.targets,
        early_stop=True,
    )
    np.testing.assert_array_equal(predictions(case.logits_of, found), case.targets)


def test_targeted_apgd_takes_the_likeliest_classes_in_turn(case):
    options = {"eps": 0.04, "steps": 20, "early_stop": True}
    right = slice(1, 6)
    images, labels = case.images[right], case.labels[right]

    def fooled(most):
        found = apgd_targeted(case.logits_of, images, labels, KEY, most_targets=most, **options)
        return predictions(case.logits_of, found) != labels

    one, nine = fooled(1), fooled(9)
    assert (nine >= one).all()
    assert nine.sum() > one.sum() > 0


def test_likeliest_others():
    logits = np.array([[0.1, 3, 2], [5, 1, 2.0]])
    np.testing.assert_array_equal(likeliest_others(logits, np.array([1, 2])), [[2, 0], [0, 1]])


@pytest.mark.slow
def test_an_image_fares_the_same_in_any_company(case):
    options = {"eps": 0.03, "steps": 12, "early_stop": True}
    together = apgd(case.logits_of, case.images, case.labels, KEY, **options, restarts=2)
    order = np.array([3, 1])
    apart = apgd(
        case.logits_of,
        case.images[order],
        case.labels[order],
        KEY,
        **options,
        restarts=2,
        indices=order,
        batching=Batching(4),
    )
    np.testing.assert_allclose(apart, together[order], rtol=0, atol=1e-14)


def test_bad_options_are_told(case, linear):
    def attack(**options):
        return apgd(case.logits_of, case.images, case.labels, KEY, eps=0.1, **options)

    with pytest.raises(UsageError, match="unknown loss 'drl'; did you mean 'dlr'"):
        attack(loss="drl")
    with pytest.raises(UsageError, match="unknown norm 'l1'"):
        attack(norm="l1")
    with pytest.raises(UsageError, match="compares 3 classes and the network tells 2 apart"):
        apgd(linear.logits_of, linear.images, linear.labels, KEY, eps=0.1, loss="dlr")
