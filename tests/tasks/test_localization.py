"""Localisation's joint loss and ILSVRC's error, by hand and against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.tasks import localization

NAMES = tuple("abcdef")


@pytest.fixture(scope="module", params=[6, 1], ids=["specific", "agnostic"])
def case(request):
    """Outputs of 40 images of six classes, their labels and up to three boxes."""
    rng = np.random.default_rng(0)

    def boxes(*shape):
        corner = rng.uniform(0, 0.5, (*shape, 2))
        return np.concatenate([corner, corner + rng.uniform(0.2, 0.5, (*shape, 2))], -1)

    true = boxes(40, 3)
    true[rng.random((40, 3)) < 0.4] = 0
    true = np.take_along_axis(true, np.argsort(true.sum(-1) == 0, axis=1)[..., None], axis=1)
    guessed = boxes(40, request.param)
    guessed[:20] = true[:20, :1] + rng.normal(0, 0.05, (20, request.param, 4))
    outputs = {"logits": rng.normal(size=(40, 6)), "boxes": guessed}
    outputs = {name: jnp.asarray(value, jnp.float32) for name, value in outputs.items()}
    return outputs, rng.integers(0, 6, 40), jnp.asarray(true, jnp.float32)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(areas) - both)


def error_by_loops(outputs, labels, boxes, k):
    wrong = 0
    for logits, guessed, label, own in zip(
        *map(np.asarray, (outputs["logits"], outputs["boxes"], labels, boxes)), strict=True
    ):
        best = sorted(range(6), key=lambda i: -logits[i])[:k]
        wrong += not any(
            c == label
            and any(iou(guessed[c if len(guessed) > 1 else 0], b) >= 0.5 for b in own if b.any())
            for c in best
        )
    return wrong / len(labels)


def summary_of(outputs, labels, boxes, weight=None):
    weight = jnp.ones(len(labels)) if weight is None else weight
    sums = jax.jit(localization.metric_sums)(outputs, jnp.asarray(labels), boxes, weight)
    return localization.summarize(jax.tree.map(np.asarray, sums), NAMES)


def test_errors_are_those_of_a_plain_loop(case):
    found = summary_of(*case)
    for k in (1, 5):
        expected = error_by_loops(*case, k)
        assert 0 < expected < 1
        assert found[f"top{k}_localization_error"] == pytest.approx(expected)
    kinds = found["error_kinds"]
    assert sum(kinds.values()) == pytest.approx(found["top1_localization_error"])
    assert kinds["class"] + kinds["both"] == pytest.approx(found["top1_error"])


def test_the_distance_is_of_the_true_class_s_box(case):
    outputs, labels, boxes = case
    _, distance = localization.loss(outputs, jnp.asarray(labels), boxes)
    i = int(np.argmax(np.asarray(boxes[:, 0]).any(-1)))
    own = np.asarray(outputs["boxes"])[i, labels[i] if outputs["boxes"].shape[1] > 1 else 0]
    assert distance[i] == pytest.approx(np.sum((own - np.asarray(boxes[i, 0])) ** 2), rel=1e-5)


def test_an_image_without_a_box_trains_its_class_alone(case):
    outputs, labels, boxes = case

    def total(outputs):
        entropy, distance = localization.loss(outputs, jnp.asarray(labels), 0 * boxes)
        return entropy.sum() + distance.sum()

    value, gradient = jax.value_and_grad(total)(outputs)
    assert np.isfinite(value)
    assert (gradient["boxes"] == 0).all()
    assert np.isfinite(gradient["logits"]).all()
    found = summary_of(outputs, labels, 0 * boxes)
    assert found["top1_localization_error"] == found["top5_localization_error"] == 1


def test_padding_examples_do_not_count(case):
    outputs, labels, boxes = case
    first = {name: value[:10] for name, value in outputs.items()}
    weight = (jnp.arange(40) < 10).astype(jnp.float32)
    part, alone = summary_of(*case, weight), summary_of(first, labels[:10], boxes[:10])
    assert part["examples"] == 10
    assert part["top1_localization_error"] == alone["top1_localization_error"]
    assert part["loss"] == pytest.approx(alone["loss"], rel=1e-5)
