"""Boxes against torchvision's stored outputs and against loops written from the definitions."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from tests.references.detection_boxes import BASE_SIZES, random_boxes

REFERENCE = dict(np.load(Path(__file__).parents[1] / "references" / "detection_ops.npz"))

# of no area, a point, a line, inside out, far outside, of an enormous side
DEGENERATE = np.array(
    [
        [5, 5, 5, 5],
        [3, 4, 9, 4],
        [9, 9, 3, 3],
        [9, 2, 3, 8],
        [-50, -50, -40, -40],
        [-1e6, -1e6, 1e6, 1e6],
    ],
    float,
)


def mixed_boxes(seed: int, count: int = 30) -> np.ndarray:
    """Return random boxes, some twice, with degenerate ones among them."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([random_boxes(rng, count), DEGENERATE])
    boxes = np.concatenate([boxes, boxes[rng.integers(0, len(boxes), 6)]])
    return rng.permutation(boxes)


def loop_iou(a, b) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [max(0, x[2] - x[0]) * max(0, x[3] - x[1]) for x in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def loop_nms(boxes, scores, valid, threshold, classes=None) -> np.ndarray:
    """Greedy suppression as it is told: take the best that is left, drop what it overlaps."""
    kept: list[int] = []
    for i in sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i)):
        rivals = [j for j in kept if classes is None or classes[i] == classes[j]]
        if all(loop_iou(boxes[i], boxes[j]) <= threshold for j in rivals):
            kept.append(i)
    return np.isin(np.arange(len(boxes)), kept)


def test_iou_equals_torchvisions():
    found = ops.box_iou(REFERENCE["boxes"], REFERENCE["others"])
    np.testing.assert_allclose(found, REFERENCE["iou"], rtol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_iou_is_the_loops_and_never_nan(seed):
    boxes, others = mixed_boxes(seed), mixed_boxes(seed + 100)
    expected = [[loop_iou(a, b) for b in others] for a in boxes]
    np.testing.assert_allclose(ops.box_iou(boxes, others), expected, rtol=1e-12)


def test_area_of_an_inverted_box_is_zero():
    np.testing.assert_array_equal(ops.box_area(DEGENERATE), [0, 0, 0, 0, 100, 4e12])


def test_clip_equals_torchvisions_and_empties_boxes_outside():
    found = ops.clip_boxes(REFERENCE["boxes"], 40, 60)
    np.testing.assert_array_equal(found, REFERENCE["clipped"])
    outside = ops.clip_boxes(np.array([[70.0, 5, 90, 20], [-9, -9, -3, -3]]), 40, 60)
    np.testing.assert_array_equal(ops.box_area(outside), 0)


def test_coder_equals_torchvisions():
    weights = (10, 10, 5, 5)
    encoded = ops.encode_boxes(REFERENCE["boxes"][:30], REFERENCE["others"], weights)
    np.testing.assert_allclose(encoded, REFERENCE["encoded"], rtol=1e-12, atol=1e-12)
    decoded = ops.decode_boxes(REFERENCE["deltas"], REFERENCE["others"], weights)
    np.testing.assert_allclose(decoded, REFERENCE["decoded"], rtol=1e-12)


def test_decoding_undoes_encoding():
    boxes, references = REFERENCE["boxes"][:30], REFERENCE["others"]
    again = ops.decode_boxes(ops.encode_boxes(boxes, references), references)
    np.testing.assert_allclose(again, boxes, rtol=1e-9, atol=1e-9)


def test_the_sides_grow_at_most_from_16_to_1000():
    reference = np.array([[0.0, 0, 16, 16]])
    grown = ops.decode_boxes(np.array([[0.0, 0, 99, 99]]), reference)
    np.testing.assert_allclose(grown[0, 2:] - grown[0, :2], 1000)


def test_encoding_degenerate_boxes_and_its_gradient_are_finite():
    boxes = mixed_boxes(0)
    assert np.isfinite(ops.encode_boxes(boxes, boxes[::-1])).all()
    slope = jax.grad(lambda b: ops.encode_boxes(b, jnp.asarray(boxes[::-1])).sum())(
        jnp.asarray(boxes)
    )
    assert np.isfinite(slope).all()


def test_anchors_equal_torchvisions():
    base = ops.base_anchors(BASE_SIZES, (0.5, 1, 2))
    np.testing.assert_array_equal(ops.grid_anchors(base, (3, 5), (16, 8)), REFERENCE["anchors"])


def test_the_papers_anchor_of_128_and_ratio_2_is_91_by_181():
    np.testing.assert_array_equal(ops.base_anchors([128], [2]), [[-45, -91, 45, 91]])


def test_matches_equal_torchvisions():
    iou = ops.box_iou(REFERENCE["boxes"][:7], REFERENCE["others"])
    valid = jnp.ones(7, bool)
    found = ops.match_boxes(iou, valid, foreground=0.5, background=0.3, low_quality=True)
    np.testing.assert_array_equal(found, REFERENCE["matches"])
    strict = ops.match_boxes(iou, valid, foreground=0.5, background=0.5)
    np.testing.assert_array_equal(strict, REFERENCE["strict_matches"])


def test_padding_matches_nothing_and_changes_nothing():
    """Where every overlap is 0, as padding's is, no candidate overlaps most."""
    iou = np.asarray(ops.box_iou(REFERENCE["boxes"][:7], REFERENCE["others"]))
    padded = np.concatenate([iou, np.zeros((3, 30))])
    valid = np.arange(10) < 7
    settings = {"foreground": 0.5, "background": 0.3, "low_quality": True}
    found = ops.match_boxes(padded, valid, **settings)
    np.testing.assert_array_equal(found, REFERENCE["matches"])
    # whatever stands in the padding
    rubbish = np.concatenate([iou, np.ones((3, 30))])
    np.testing.assert_array_equal(ops.match_boxes(rubbish, valid, **settings), found)
    # an object that overlaps no candidate claims none either
    claimed = ops.match_boxes(padded, np.ones(10, bool), **settings)
    np.testing.assert_array_equal(claimed, found)


def test_without_objects_all_is_background():
    iou = np.random.default_rng(0).uniform(size=(4, 9))
    found = ops.match_boxes(iou, np.zeros(4, bool), foreground=0.5, background=0.3)
    np.testing.assert_array_equal(found, ops.BACKGROUND)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (100, 100, (16, 48)),  # a quarter of 64
        (5, 100, (5, 59)),  # background takes the places that positives leave
        (100, 10, (16, 10)),  # positives never take background's
        (0, 100, (0, 64)),
        (0, 0, (0, 0)),
    ],
)
def test_samples_are_balanced(positives, negatives, expected):
    rng = np.random.default_rng(0)
    matches = np.full(300, ops.IGNORED)
    matches[:positives] = rng.integers(0, 5, positives)
    matches[positives : positives + negatives] = ops.BACKGROUND
    matches = rng.permutation(matches)
    priorities = rng.uniform(size=300)
    index, chosen = jax.jit(ops.balanced_sample, static_argnums=(2, 3))(
        matches, priorities, 64, 0.25
    )
    drawn = matches[index[chosen]]
    assert ((drawn >= 0).sum(), (drawn == ops.BACKGROUND).sum()) == expected
    assert len(np.unique(index[chosen])) == sum(expected)
    assert (np.diff((drawn >= 0).astype(int)) <= 0).all()  # positives first
    # those of the highest priority
    for group in (matches >= 0, matches == ops.BACKGROUND):
        taken = np.isin(np.arange(300), index[chosen]) & group
        left = group & ~taken
        assert priorities[taken].min(initial=1) >= priorities[left].max(initial=0)


def test_a_sample_of_more_than_there_are_takes_all_it_may():
    matches = np.array([0, ops.BACKGROUND, ops.IGNORED, 1])
    index, chosen = ops.balanced_sample(matches, np.linspace(0, 1, 4), 256, 0.5)
    assert sorted(np.asarray(index[chosen])) == [0, 1, 3]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7])
def test_nms_equals_torchvisions(threshold):
    boxes, scores = REFERENCE["nms_boxes"], REFERENCE["nms_scores"]
    kept = ops.nms(boxes, scores, jnp.ones(len(boxes), bool), threshold)
    np.testing.assert_array_equal(np.flatnonzero(kept), np.sort(REFERENCE[f"kept/{threshold}"]))


def test_nms_of_classes_equals_torchvisions():
    boxes, scores = REFERENCE["nms_boxes"], REFERENCE["nms_scores"]
    valid = jnp.ones(len(boxes), bool)
    kept = ops.nms(boxes, scores, valid, 0.5, REFERENCE["nms_classes"])
    np.testing.assert_array_equal(np.flatnonzero(kept), np.sort(REFERENCE["kept_by_class"]))


@pytest.mark.parametrize("seed", range(20))
def test_nms_is_the_greedy_loop(seed):
    """On random and degenerate boxes with ties, padding and classes."""
    rng = np.random.default_rng(seed)
    boxes = mixed_boxes(seed)
    scores = rng.integers(0, 12, len(boxes)) / 12
    valid = rng.uniform(size=len(boxes)) < 0.8
    classes = rng.integers(0, 3, len(boxes)) if seed % 2 else None
    threshold = rng.uniform(0, 0.8)
    kept = NMS(boxes, scores, valid, threshold, classes)
    expected = loop_nms(boxes, scores, valid, threshold, classes)
    np.testing.assert_array_equal(kept, expected)


NMS = jax.jit(ops.nms)


def test_nms_of_a_chain_in_which_every_second_box_stays():
    """The fixpoint's longest case: what is dropped no longer drops the next."""
    start = np.arange(50.0)
    boxes = np.stack([start, np.zeros(50), start + 2, np.ones(50)], -1)
    kept = NMS(boxes, -start, np.ones(50, bool), 0.3, None)
    np.testing.assert_array_equal(kept, np.arange(50) % 2 == 0)


def test_nms_of_a_batch_and_of_nothing():
    boxes = np.stack([mixed_boxes(0), mixed_boxes(1)])
    scores = np.random.default_rng(2).uniform(size=boxes.shape[:2])
    valid = np.stack([np.ones(boxes.shape[1], bool), np.zeros(boxes.shape[1], bool)])
    kept = jax.vmap(lambda *each: ops.nms(*each, 0.5))(boxes, scores, valid)
    np.testing.assert_array_equal(kept[0], loop_nms(boxes[0], scores[0], valid[0], 0.5))
    assert not kept[1].any()
