"""AutoAttack: its order, its accuracy after each attack, and its doubts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks.autoattack import autoattack, evaluate, odd_outputs
from cnn_jax.attacks.loop import predictions

KEY = jax.random.key(0)
SHORT = {"steps": 8, "queries": 20}


@pytest.mark.slow
def test_accuracy_falls_from_attack_to_attack_and_the_images_bear_it_out(case):
    found = evaluate(case.logits_of, case.images, case.labels, KEY, eps=0.025, **SHORT)
    assert list(found.accuracy) == ["clean", "apgd_ce", "apgd_targeted", "fab", "square"]
    values = list(found.accuracy.values())
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(5 / 6)
    assert 0 < values[-1] < values[0]
    right = predictions(case.logits_of, found.adversarial) == case.labels
    assert right.mean() == pytest.approx(values[-1])
    np.testing.assert_array_equal(found.adversarial[right], case.images[right])
    assert found.warnings == ()


def test_doubts_about_outputs(case):
    calls = []

    def random(images):
        calls.append(1)
        return case.logits_of(images) * (1 + jnp.arange(10) * len(calls) / 100)

    def probabilities(images):
        return jax.nn.softmax(case.logits_of(images))

    assert odd_outputs(case.logits_of, case.images) == []
    for logits_of, doubt in ((random, "other logits"), (probabilities, "before the softmax")):
        (found,) = odd_outputs(logits_of, case.images)
        assert doubt in found


@pytest.mark.slow
def test_accuracy_is_within_one_image_of_the_authors_on_200_images(case, references):
    images = np.random.default_rng(7).uniform(size=(200, 7, 7, 3))
    labels = predictions(case.logits_of, images)
    found = evaluate(case.logits_of, images, labels, KEY, eps=0.03)
    expected = float(references["autoattack/linf"])
    assert 0.1 < expected < 0.9
    assert abs(found.accuracy["square"] - expected) <= 1 / 200 + 1e-12


@pytest.mark.slow
def test_masked_gradients_are_noticed(case):
    """Rounding hides the gradient from all but the black-box attack."""

    def masked(images):
        return case.logits_of(jnp.round(images * 40) / 40)

    right = predictions(masked, case.images) == case.labels
    images, labels = case.images[right], case.labels[right]
    with pytest.warns(UserWarning, match="black-box attack fooled"):
        autoattack(masked, images, labels, KEY, eps=0.05, steps=2, queries=200)
    found = evaluate(masked, images, labels, KEY, eps=0.05, steps=2, queries=200)
    assert found.accuracy["square"] < found.accuracy["fab"]
    assert any("gradient vanishes on" in text for text in found.warnings)


def test_few_classes_are_told(linear):
    with pytest.raises(UsageError, match="tells 2 classes apart"):
        evaluate(linear.logits_of, linear.images, linear.labels, KEY, eps=0.1)
