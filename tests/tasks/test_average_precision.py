"""VOC's average precision against one written plainly from its definition, and against COCO's."""

import numpy as np
import pytest

from cnn_jax.tasks import average_precision as ap
from cnn_jax.tasks.detection_errors import KINDS, count_kinds

NAMES = ("background", "cat", "dog", "cow")


def plain_iou(a, b) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_ap(found, objects, label, threshold, eleven_points) -> float:
    """VOC's evaluation, one detection after the other, precision by a scan of all points."""
    entries = sorted(
        (-score, image, place)
        for image, each in enumerate(found)
        for place, score in enumerate(each.scores)
        if each.labels[place] == label
    )
    used = [[False] * len(truth.labels) for truth in objects]
    count = sum(
        1
        for truth in objects
        for own, hard in zip(truth.labels, truth.difficult, strict=True)
        if own == label and not hard
    )
    points, true, false = [], 0, 0
    for _, image, place in entries:
        truth, best, best_iou = objects[image], None, -1.0
        for j, own in enumerate(truth.labels):
            overlap = plain_iou(found[image].regions[place], truth.regions[j])
            if own == label and overlap > best_iou:
                best, best_iou = j, overlap
        if best is not None and best_iou >= threshold:
            if truth.difficult[best]:
                continue
            true, false = (true, false + 1) if used[image][best] else (true + 1, false)
            used[image][best] = True
        else:
            false += 1
        points.append((true, true / (true + false)))
    if eleven_points:
        at = [max((p for t, p in points if 10 * t >= r * count), default=0) for r in range(11)]
        return sum(at) / 11
    return sum(
        max(p for t, p in points if t >= hit) / count
        for hit in range(1, max((t for t, _ in points), default=0) + 1)
    )


def random_case(seed: int, images: int = 12):
    """Return objects, and detections near some of them, with ties, duplicates and strays."""
    rng = np.random.default_rng(seed)
    found, objects = [], []
    for _ in range(images):
        count = int(rng.integers(0, 5))
        boxes = rng.integers(0, 60, (count, 4)).astype(float)
        boxes[:, 2:] = boxes[:, :2] + rng.integers(5, 40, (count, 2))
        labels = rng.integers(1, 4, count)
        objects.append(ap.Objects(boxes, labels, rng.uniform(size=count) < 0.2))
        near = rng.integers(0, count, 2 * count) if count else np.zeros(0, int)
        moved = boxes[near] + rng.normal(0, 4, (len(near), 4)).round()
        stray = np.concatenate([rng.integers(0, 40, (2, 2)), rng.integers(41, 90, (2, 2))], 1)
        seen = np.concatenate([labels[near], rng.integers(1, 4, 2)])
        scores = np.round(rng.uniform(size=len(seen)), 2)
        found.append(ap.Found(np.concatenate([moved, stray]), scores, seen))
    return found, objects


@pytest.mark.parametrize("seed", range(25))
def test_both_definitions_equal_the_plain_ones(seed):
    found, objects = random_case(seed)
    for definition in (ap.AREA, ap.ELEVEN_POINTS):
        ours = ap.mean_average_precision(found, objects, NAMES, definition=definition)
        for label, name in enumerate(NAMES[1:], 1):
            if ours["per_class"][name] is not None:
                plain = plain_ap(found, objects, label, 0.5, definition == ap.ELEVEN_POINTS)
                assert ours["per_class"][name] == pytest.approx(plain, abs=1e-12)


def test_the_two_definitions_on_a_case_by_hand():
    """Right, wrong, right of three objects: precision 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3."""
    right = np.array([True, False, True])
    assert ap.average_precision(right, 3) == pytest.approx(1 / 3 + 2 / 9)
    eleven = (4 * 1 + 3 * 2 / 3) / 11  # recalls 0 to .3, then .4 to .6
    assert ap.average_precision(right, 3, ap.ELEVEN_POINTS) == pytest.approx(eleven)


def test_perfect_detections_have_1_and_a_class_without_objects_is_left_out():
    box = np.array([[0.0, 0, 9, 9]])
    objects = [ap.Objects(box, np.array([2]), np.array([False]))]
    found = [ap.Found(box, np.array([0.4]), np.array([2]))]
    result = ap.mean_average_precision(found, objects, NAMES)
    assert result == {"map": 1.0, "per_class": {"cat": None, "dog": 1.0, "cow": None}}
    assert ap.mean_average_precision([], [], NAMES)["map"] is None


def test_of_two_detections_of_an_object_the_second_is_wrong_unless_it_is_difficult():
    box = np.array([[0.0, 0, 9, 9]])
    found = [ap.Found(np.repeat(box, 2, 0), np.array([0.5, 0.9]), np.array([1, 1]))]
    for difficult, expected in ((False, [True, False]), (True, [])):
        objects = [ap.Objects(box, np.array([1]), np.array([difficult]))]
        _, right, count = ap.mark(found, objects, 1, 0.5, ap.pixel_iou)
        assert list(right) == expected
        assert count == (not difficult)


def test_pixels_of_voc_boxes_are_inclusive_and_those_of_others_are_not():
    one, other = np.array([[0.0, 0, 9, 9]]), np.array([[0.0, 0, 9, 4]])
    assert ap.pixel_iou(one, other)[0, 0] == 0.5  # 10 x 10 and 10 x 5 pixels
    assert ap.box_iou(one, other)[0, 0] == pytest.approx(4 / 9)


def test_masks_overlap_by_their_pixels():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, :2], masks[1, 1:3] = True, True
    np.testing.assert_allclose(ap.mask_iou(masks, masks)[0], [1, 1 / 3, 0])
    assert ap.mask_iou(masks, masks)[2, 2] == 0


def test_errors_have_one_kind_each():
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    objects = [ap.Objects(boxes, np.array([1, 2, 3]), np.zeros(3, bool))]
    regions = np.array(
        [
            [0.0, 0, 10, 10],  # right
            [0, 0, 10, 9],  # again
            [20, 20, 30, 30],  # as a cow
            [55, 55, 65, 65],  # shifted
            [80, 80, 90, 90],  # nothing there
            [50, 50, 60, 60],  # unsure
        ]
    )
    labels, scores = np.array([1, 1, 3, 3, 1, 3]), np.array([0.9, 0.8, 0.9, 0.7, 0.6, 0.3])
    counted = count_kinds([ap.Found(regions, scores, labels)], objects)
    assert counted == dict(zip(KINDS, (1, 1, 1, 1, 1, 2), strict=True))


def test_coco_gives_the_same_ap50_but_for_its_101_recalls():
    found, objects = random_case(0)
    objects = [each._replace(difficult=np.zeros(len(each.labels), bool)) for each in objects]
    theirs = ap.coco_metrics(found, objects)["AP50"]
    ours = ap.mean_average_precision(found, objects, NAMES, iou=ap.box_iou)["map"]
    assert theirs == pytest.approx(ours, abs=0.02)


def test_coco_measures_masks_by_their_pixels():
    """One mask of 20x20 found exactly, one by 16 of its 20 rows: right up to an overlap of .8."""
    masks = np.zeros((3, 100, 100), bool)
    masks[0, 10:30, 10:30] = masks[1, 50:70, 50:70] = masks[2, 50:66, 50:70] = True
    objects = [ap.Objects(masks[:2], np.array([1, 1]), np.zeros(2, bool))]
    found = [ap.Found(masks[[0, 2]], np.array([0.9, 0.8]), np.array([1, 1]))]
    metrics = ap.coco_metrics(found, objects, masks=True)
    assert metrics["AP50"] == metrics["AP75"] == 1
    # .5 to .8: both; .85 to .95: the first, at 51 of the 101 recalls
    assert metrics["AP"] == pytest.approx((7 + 3 * 51 / 101) / 10)


def test_images_without_detections_or_objects_have_no_overlaps():
    none, some = np.zeros((0, 4, 4), bool), np.ones((2, 4, 4), bool)
    assert ap.mask_iou(none, some).shape == (0, 2)
    assert ap.mask_iou(some, none).shape == (2, 0)
    assert ap.box_iou(np.zeros((0, 4)), np.ones((2, 4))).shape == (0, 2)
