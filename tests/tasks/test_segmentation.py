"""Segmentation's loss and metrics against scikit-learn's, and what does not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from cnn_jax.errors import UsageError
from cnn_jax.tasks import segmentation

CLASSES = 4
NAMES = ("ground", "a", "b", "c")


@pytest.fixture(scope="module")
def case():
    """Logits of 2 images of 6x5 pixels and their labels, a fifth of them ignored."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 6, 5, CLASSES))
    label = rng.integers(0, CLASSES, (2, 6, 5))
    label[rng.random(label.shape) < 0.2] = segmentation.IGNORED
    return logits, label.astype(np.uint8)


def summary_of(logits, label, weight=(1.0, 1.0)):
    sums = jax.jit(segmentation.metric_sums)(logits, label, jnp.asarray(weight))
    return segmentation.summarize(jax.tree.map(np.asarray, sums), NAMES)


def test_the_loss_is_the_mean_over_the_pixels_that_count(case):
    logits, label = case
    with jax.enable_x64(True):
        ours = segmentation.cross_entropy(jnp.asarray(logits), label)
    counted = label != segmentation.IGNORED
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    theirs = metrics.log_loss(label[counted], probabilities[counted], labels=range(CLASSES))
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_dice_loss_of_certain_logits_is_one_minus_scikit_learns_f1_score(case):
    logits, label = case
    label = np.where(label == 3, segmentation.IGNORED, label)  # predicted, and nowhere true
    counted = label != segmentation.IGNORED
    chosen = logits.argmax(-1)
    certain = jnp.asarray(100 * np.eye(CLASSES)[chosen])
    f1 = metrics.f1_score(label[counted], chosen[counted], labels=range(3), average="macro")
    assert segmentation.dice_loss(certain, label) == pytest.approx(1 - f1, rel=1e-5)


def test_the_dice_loss_is_added_to_every_heads_cross_entropy(case):
    logits, label = jnp.asarray(case[0]), case[1]
    one = segmentation.cross_entropy(logits, label) + 3 * segmentation.dice_loss(logits, label)
    both = segmentation.loss(logits, [logits], label, dice_weight=3)
    assert both == pytest.approx(1.5 * float(one), rel=1e-6)


def test_metrics_equal_scikit_learns(case):
    logits, label = case
    counted = label != segmentation.IGNORED
    true, predicted = label[counted], logits.argmax(-1)[counted]
    ours = summary_of(logits, label)
    np.testing.assert_array_equal(ours["confusion"], metrics.confusion_matrix(true, predicted))
    assert ours["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert ours["mean_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(true, predicted))
    jaccard = metrics.jaccard_score(true, predicted, average=None)
    assert list(ours["per_class_iou"].values()) == pytest.approx(jaccard)
    assert ours["mean_iou"] == pytest.approx(jaccard.mean())
    assert ours["pixels"] == counted.sum()


def test_a_class_that_is_nowhere_has_no_part_in_the_means():
    label = np.zeros((1, 2, 2), np.uint8)
    logits = np.zeros((1, 2, 2, CLASSES))
    logits[..., 0] = 1
    logits[0, 0, 0, 2] = 2  # one pixel of the ground is called b
    found = summary_of(logits, label, (1.0,))
    assert found["per_class_iou"] == {"ground": 0.75, "a": None, "b": 0.0, "c": None}
    assert found["mean_iou"] == 0.375
    assert found["mean_accuracy"] == found["pixel_accuracy"] == 0.75


def test_padding_examples_do_not_count(case):
    logits, label = case
    one, both = summary_of(logits, label, (1.0, 0.0)), summary_of(logits, label)
    assert one["examples"] == 1
    assert one["pixels"] == (label[0] != segmentation.IGNORED).sum()
    assert both["examples"] == 2


@pytest.mark.parametrize("loss", [segmentation.cross_entropy, segmentation.dice_loss])
def test_without_a_pixel_that_counts_the_loss_is_zero_and_so_is_its_gradient(case, loss):
    logits = jnp.asarray(case[0], jnp.float32)
    label = np.full(logits.shape[:3], segmentation.IGNORED, np.uint8)
    value, gradient = jax.value_and_grad(loss)(logits, label)
    assert value == 0
    assert (gradient == 0).all()
    with pytest.raises(UsageError, match="all pixels of all masks are ignored"):
        summary_of(logits, label)


def test_pixels_of_all_devices_weigh_the_same_in_the_dice_loss(case):
    logits, label = jnp.asarray(case[0], jnp.float32), jnp.asarray(case[1])
    label = label.at[0, :4].set(segmentation.IGNORED)  # the devices count different numbers
    loss = segmentation.dice_loss
    mean = jax.vmap(
        lambda logits, label: loss(logits[None], label[None], "devices"),
        axis_name="devices",
    )
    assert mean(logits, label).mean() == pytest.approx(float(loss(logits, label)), rel=1e-6)


def test_parts_that_know_the_total_have_the_mean_of_the_whole(case):
    logits, label = jnp.asarray(case[0], jnp.float32), jnp.asarray(case[1])
    label = label.at[0, :4].set(segmentation.IGNORED)  # the parts count different numbers
    share = segmentation.total_weight(label) / 2
    parts = [
        segmentation.cross_entropy(logits[i : i + 1], label[i : i + 1], total=share) for i in (0, 1)
    ]
    whole = segmentation.cross_entropy(logits, label)
    assert np.mean(parts) == pytest.approx(float(whole), rel=1e-6)


def test_a_label_that_is_no_class_shows_as_nan(case):
    label = np.full(case[1].shape, 7, np.uint8)
    assert np.isnan(segmentation.cross_entropy(jnp.asarray(case[0]), label))


def test_a_mask_of_another_size_is_an_error(case, wrong_types):
    with pytest.raises(UsageError, match=r"logits of \(6, 5\) pixels do not fit .* \(6, 3\)"):
        segmentation.cross_entropy(jnp.asarray(case[0]), case[1][..., :3])


def test_auxiliary_heads_have_half_the_weight(case):
    logits, label = jnp.asarray(case[0]), case[1]
    single = segmentation.cross_entropy(logits, label)
    assert segmentation.loss(logits, [logits, logits], label) == pytest.approx(2 * float(single))
