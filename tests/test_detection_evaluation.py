"""Detectors are measured in the pixels of the image files, as pycocotools measures them there."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cnn_jax import ops
from cnn_jax.data import detection as data
from cnn_jax.detection_evaluation import evaluate, first_examples, headline
from cnn_jax.models.faster_rcnn import Detections
from cnn_jax.tasks import average_precision as ap
from tests.data import coco_folders
from tests.data.coco_folders import HEIGHT, WIDTH, content

CANVAS, ROOM = 128, 5


def answers(dataset) -> list[Detections]:
    """Per image: its objects, moved a little, one of them under another class, and a stray box."""
    rng, scale = np.random.default_rng(0), CANVAS / WIDTH
    found = []
    for i in range(len(dataset.source)):
        objects = data.true_objects(dataset, i)
        count = len(objects.labels)
        boxes, labels = np.zeros((ROOM, 4), np.float32), np.ones(ROOM, np.int32)
        boxes[:count] = objects.boxes * scale + rng.normal(0, 0.8, (count, 4))
        boxes[count] = 3, 5, 30, 40
        labels[:count] = objects.labels
        if i == 1:
            labels[0] = 1 + labels[0] % 3
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = np.sort(rng.uniform(0.2, 1, ROOM).astype(np.float32))[::-1]
        valid = np.arange(ROOM) <= count
        masks = rng.uniform(0.3, 1, (ROOM, 14, 14)).astype(np.float32)
        found.append(Detections(boxes, scores, labels, valid, np.array(True), masks))
    return found


def detector_that_answers(found):
    """Return detect(variables, batch), which knows the images by their grey level."""

    def detect(variables, batch):
        del variables
        own = [found[int(level) // 20] for level in batch["image"][:, 0, 0, 0]]
        return Detections(*(np.stack(each) for each in zip(*own, strict=True)))

    return detect


def of_pycocotools(file, found, dataset, kind) -> list[float]:
    """COCO's own evaluation of the same detections, written down in the file's pixels."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        category = {own["name"]: own["id"] for own in truth.loadCats(truth.getCatIds())}
        results = []
        for number, one in zip(sorted(truth.imgs), found, strict=True):
            boxes = np.asarray(one.boxes, np.float64) * (WIDTH / CANVAS)
            pasted = np.asarray(ops.paste_masks(one.masks, np.float32(boxes), HEIGHT, WIDTH)) > 0.5
            for j in np.flatnonzero(one.valid):
                x1, y1, x2, y2 = boxes[j]
                mask = coco_folders.run_lengths.encode(np.asfortranarray(pasted[j], np.uint8))
                region = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                region = region if kind == "bbox" else {"segmentation": mask}
                results.append(
                    {
                        "image_id": number,
                        "category_id": category[dataset.class_names[one.labels[j]]],
                        "score": float(one.scores[j]),
                        **region,
                    }
                )
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "own"
    return coco_folders.as_coco(root, content(4), content(8))


@pytest.fixture(scope="module")
def measured(folder):
    dataset = data.load(f"coco:{folder}", "validation")
    found = answers(dataset)
    detect = detector_that_answers(found)
    settings = {"batch_size": 3, "canvas": CANVAS}
    results = evaluate(detect, {}, dataset, **settings)
    shown = first_examples(detect, {}, dataset, **settings, count=2)
    return dataset, found, results, shown


@pytest.mark.parametrize(("kind", "theirs"), [("box", "bbox"), ("mask", "segm")])
def test_coco_s_metrics_are_pycocotools_on_the_original_images(folder, measured, kind, theirs):
    dataset, found, results, _ = measured
    file = folder / "annotations/instances_val2017.json"
    expected = of_pycocotools(file, found, dataset, theirs)
    assert list(results[f"{kind}_coco"]) == list(ap.COCO_METRICS)
    for (name, ours), value in zip(results[f"{kind}_coco"].items(), expected, strict=True):
        assert ours == (None if value == -1 else pytest.approx(value, abs=1e-12)), name
    assert 0 < results[f"{kind}_coco"]["AP"] < 1


def test_the_means_that_are_logged_are_those_of_the_whole_results(measured):
    results = measured[2]
    for kind in ("box", "mask"):
        assert results[f"{kind}_map50"] == results[f"{kind}_ap50"]["map"]
        assert results[f"{kind}_map"] == results[f"{kind}_coco"]["AP"]
    box, mask = (results[f"{kind}_map50"] for kind in ("box", "mask"))
    assert headline(results) == f"box AP50 {box:.3f}, mask AP50 {mask:.3f}"


def test_objects_of_60_by_60_pixels_are_of_medium_size_on_a_smaller_canvas_too(measured):
    coco = measured[2]["box_coco"]
    assert coco["AP_medium"] is not None
    assert coco["AP_medium"] > 0
    assert coco["AP_large"] > 0


def test_pictures_show_objects_and_detections_on_the_canvas(measured):
    dataset, found, results, shown = measured
    assert results["images"] == 8
    assert len(shown) == 2
    for i, own in enumerate(shown):
        assert own["image"].shape == (CANVAS, CANVAS, 3)
        np.testing.assert_allclose(
            own["truth"]["boxes"], data.true_objects(dataset, i).boxes * CANVAS / WIDTH, rtol=1e-5
        )
        count = len(own["truth"]["labels"])
        assert own["truth"]["masks"].shape == (count, CANVAS, CANVAS)
        np.testing.assert_array_equal(own["found"]["boxes"], found[i].boxes[found[i].valid])


def test_a_split_without_any_object_has_no_precision_and_no_error(tmp_path):
    """COCO's -1 for what is undefined is nobody's precision."""
    held_out = content(4)
    held_out["annotations"] = []
    folder = coco_folders.as_coco(tmp_path, content(4), held_out)
    known = data.load(f"coco:{folder}", "train")
    dataset = data.load(f"coco:{folder}", "validation")
    detect = detector_that_answers(answers(known))
    settings = {"batch_size": 4, "canvas": CANVAS}
    results = evaluate(detect, {}, dataset, **settings)
    shown = first_examples(detect, {}, dataset, **settings, count=1)
    for kind in ("box", "mask"):
        assert results[f"{kind}_ap50"]["map"] is None
        assert results[f"{kind}_ap50_11_point"] is None
        assert set(results[f"{kind}_coco"].values()) == {None}
    assert results["error_kinds"]["missed object"] == 0
    assert results["error_kinds"]["on background"] > 0
    assert shown[0]["truth"]["masks"].shape == (0, CANVAS, CANVAS)


def test_sizes_that_no_object_has_are_none(tmp_path):
    own = content(4)
    own["annotations"] = [one for one in own["annotations"] if one["bbox"][2:] == [60, 60]]
    folder = coco_folders.as_coco(tmp_path, own, own)
    dataset = data.load(f"coco:{folder}", "validation")
    detect = detector_that_answers(answers(dataset))
    coco = evaluate(detect, {}, dataset, batch_size=4, canvas=CANVAS)["box_coco"]
    assert coco["AP_small"] is coco["AP_large"] is coco["AR_small"] is coco["AR_large"] is None
    assert coco["AP_medium"] == coco["AP"] > 0
    assert "-1" not in json.dumps(coco)
