"""The loss and the metrics of classification, against scikit-learn and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from cnn_jax.tasks import classification


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 7, 50)


def test_cross_entropy_is_log_loss(scored):
    logits, label = scored
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = metrics.log_loss(label, probabilities, labels=range(7))
    actual = classification.cross_entropy(jnp.asarray(logits), jnp.asarray(label)).mean()
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_smoothing_and_mixing_are_those_of_the_soft_target(scored):
    logits, label = scored
    other, mix = np.roll(label, 1), np.linspace(0, 1, 50, dtype=np.float32)
    target = mix[:, None] * np.eye(7)[label] + (1 - mix)[:, None] * np.eye(7)[other]
    target = 0.9 * target + 0.1 / 7
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    actual = classification.cross_entropy(
        jnp.asarray(logits),
        jnp.asarray(label),
        mixed_label=jnp.asarray(other),
        mix=jnp.asarray(mix),
        smoothing=0.1,
    )
    np.testing.assert_allclose(actual, -(target * log_probs).sum(1), rtol=1e-5)


def test_the_loss_of_bfloat16_logits_is_float32(scored):
    logits, label = scored
    loss = classification.cross_entropy(jnp.asarray(logits, jnp.bfloat16), jnp.asarray(label))
    assert loss.dtype == jnp.float32


@pytest.mark.parametrize("k", [1, 5])
def test_top_k_is_scikit_learns(scored, k):
    logits, label = scored
    expected = metrics.top_k_accuracy_score(label, logits, k=k, labels=range(7))
    actual = classification.in_top(jnp.asarray(logits), jnp.asarray(label), k).mean()
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_equal_logits_do_not_all_win():
    logits = jnp.zeros((3, 3))
    hit = classification.in_top(logits, jnp.arange(3), 1)
    assert hit.tolist() == [True, False, False]


def test_nan_logits_are_wrong():
    logits = jnp.array([[jnp.nan, jnp.nan], [jnp.nan, 1.0]])
    assert not classification.in_top(logits, jnp.array([0, 1]), 5).any()


def test_sums_of_parts_are_the_metrics_of_the_whole_whatever_the_padding(scored):
    logits, label = scored
    totals = {}
    for start, stop, padding in ((0, 20, 0), (20, 45, 3), (45, 50, 11)):
        batch = classification.metric_sums(
            jnp.asarray(np.concatenate([logits[start:stop], np.ones((padding, 7), np.float32)])),
            jnp.asarray(np.concatenate([label[start:stop], np.zeros(padding, int)])),
            jnp.asarray(np.repeat([1.0, 0.0], [stop - start, padding])),
        )
        totals = {name: totals.get(name, 0) + np.asarray(value) for name, value in batch.items()}
    summary = classification.summarize(totals, tuple("abcdefg"))
    predicted = logits.argmax(1)
    assert summary["examples"] == 50
    assert summary["top1_error"] == pytest.approx(1 - metrics.accuracy_score(label, predicted))
    expected = metrics.confusion_matrix(label, predicted, labels=range(7))
    assert summary["confusion"] == expected.tolist()
    recalls = metrics.recall_score(label, predicted, average=None, labels=range(7))
    np.testing.assert_allclose(list(summary["per_class_accuracy"].values()), recalls)


def test_a_class_without_examples_has_no_accuracy():
    sums = classification.metric_sums(jnp.eye(3), jnp.array([0, 1, 1]), jnp.ones(3))
    summary = classification.summarize(sums, ("a", "b", "c"))
    assert summary["per_class_accuracy"] == {"a": 1.0, "b": 0.5, "c": None}
