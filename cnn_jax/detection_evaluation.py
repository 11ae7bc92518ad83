"""Evaluating a detector: every image of a split, once, in the pixels of the image files."""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from cnn_jax import ops
from cnn_jax.data import detection as data
from cnn_jax.data.datasets import Dataset
from cnn_jax.models import Model
from cnn_jax.models.faster_rcnn import Detections
from cnn_jax.runtime import parallel
from cnn_jax.tasks import average_precision as ap
from cnn_jax.tasks.detection_errors import count_kinds
from cnn_jax.training import detector
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.detector import Batch

# masks are pasted on canvases whose sides are multiples of this, so that few programs are compiled
_SIDE = 128
_TIMES = 5  # that a batch is timed; the median counts

_paste = jax.jit(ops.paste_masks, static_argnums=(2, 3))


def in_original_pixels(example: Batch, found: Detections) -> dict[str, ap.Found]:
    """Return an example's detections in the pixels of its file: "box", and "mask" if it has some.

    Masks are pasted there at once, not on the canvas and then resized; as run-length encodings.

    Args:
      example: size and original_size of data.detection.read.
      found: those of one image, on the canvas.
    """
    there = np.asarray(found.valid)
    scale = np.asarray(example["original_size"], np.float64) / example["size"]  # of y, x
    boxes = np.asarray(found.boxes, np.float64) * np.tile(scale[::-1], 2)
    scores, labels = np.asarray(found.scores)[there], np.asarray(found.labels)[there]
    regions = {"box": ap.Found(boxes[there], scores, labels)}
    if found.masks is not None:
        height, width = map(int, example["original_size"])
        canvas = (-(-side // _SIDE) * _SIDE for side in (height, width))
        pasted = np.asarray(_paste(found.masks, boxes.astype(np.float32), *canvas))[there]
        masks = data.array_of(ap.encoded(pasted[:, :height, :width] > 0.5))
        regions["mask"] = ap.Found(masks, scores, labels)
    return regions


def true_regions(dataset: Dataset, index: int) -> dict[str, ap.Objects]:
    """Return an example's objects likewise."""
    objects = data.true_objects(dataset, index)
    counted = (objects.labels, objects.difficult, objects.areas)
    regions = {"box": ap.Objects(objects.boxes, *counted)}
    if objects.masks is not None:
        regions["mask"] = ap.Objects(objects.masks, *counted)
    return regions


def evaluate(
    detect: Callable[[PyTree, Batch], Detections],
    variables: PyTree,
    dataset: Dataset,
    *,
    batch_size: int,
    canvas: int,
    **proposals: Any,
) -> dict[str, Any]:
    """Return a detector's precision on a whole split.

    Args:
      detect: detect(variables, batch) -> Detections, of whatever detector.
      proposals: of detectors that need them: proposals and max_proposals of
        data.detection.evaluation_batches.

    Returns:
      images; exact, whether the detector met no limit of room; seconds_per_image; error_kinds; and
      for "box", and "mask" if it finds some: _ap50, VOC's, with _ap50_11_point its mean over eleven
      recalls, and _coco, COCO's metrics; of these the means _map50 and _map. What no object decides
      is None.
    """
    batches = partial(
        data.evaluation_batches,
        dataset,
        batch_size=batch_size,
        canvas=canvas,
        max_objects=None,
        **proposals,
    )
    found, objects, exact = [], [], True
    for example, own in detector.detect_all(detect, variables, batches()):
        objects.append(true_regions(dataset, len(found)))
        found.append(in_original_pixels(example, own))
        exact = exact and bool(own.exact)
    results = {
        "images": len(found),
        "exact": exact,
        "seconds_per_image": _seconds_per_image(detect, variables, next(batches())),
    }
    for kind, iou in (("box", ap.box_iou), ("mask", ap.mask_iou)):
        if kind not in found[0]:
            continue
        ours, theirs = [each[kind] for each in found], [each[kind] for each in objects]
        measure = partial(ap.mean_average_precision, ours, theirs, dataset.class_names, iou=iou)
        results[f"{kind}_ap50"] = measure()
        results[f"{kind}_ap50_11_point"] = measure(definition=ap.ELEVEN_POINTS)["map"]
        if kind == "box":
            results["error_kinds"] = count_kinds(ours, theirs)
        results[f"{kind}_coco"] = ap.coco_metrics(ours, theirs, masks=kind == "mask")
        results[f"{kind}_map50"] = results[f"{kind}_ap50"]["map"]
        results[f"{kind}_map"] = results[f"{kind}_coco"]["AP"]
    return results


def evaluator(
    model: Model, dataset: Dataset, config: TrainConfig, devices: parallel.Devices | None = None
) -> Callable[[PyTree], dict[str, Any]]:
    """Return evaluate(variables) -> the metrics of `evaluate` on the whole split.

    Every host reads all images; the devices share the detector's work. The batch is rounded up to
    what they share evenly; that never changes what is counted.

    Args:
      config: a resolved configuration.
      devices: by default all of all hosts.
    """
    mesh = parallel.data_mesh(devices)
    detect = detector.create_detector(
        detector.settings_of(config), model.num_classes, dataset, mesh
    )

    def measure(variables: PyTree) -> dict[str, Any]:
        return evaluate(
            detect,
            parallel.put_replicated(variables, mesh),
            dataset,
            batch_size=-(-config.batch_size // mesh.size) * mesh.size,
            canvas=config.image_size,
        )

    return measure


# the numbers of an evaluation that go into the log
LOGGED = ("box_map50", "mask_map50", "box_map", "mask_map")


def shown_precision(precision: float | None) -> str:
    """Return a precision with three digits, or that no object decides it."""
    return "undefined (no objects)" if precision is None else f"{precision:.3f}"


def headline(results: Mapping[str, Any]) -> str:
    """Return the mean precisions in one line."""
    kinds = [kind for kind in ("box", "mask") if f"{kind}_ap50" in results]
    return ", ".join(
        f"{kind} AP50 {shown_precision(results[f'{kind}_ap50']['map'])}" for kind in kinds
    )


def first_examples(
    detect: Callable[[PyTree, Batch], Detections],
    variables: PyTree,
    dataset: Dataset,
    *,
    batch_size: int,
    canvas: int,
    count: int,
    **proposals: Any,
) -> list[dict[str, Any]]:
    """Return the first images of a split: image, its objects "truth" and what is "found" in it.

    All on the canvas, for pictures; boxes, labels and masks (or None) of both, scores of what is
    found. The other arguments are those of `evaluate`.
    """
    batches = data.evaluation_batches(
        dataset, batch_size=batch_size, canvas=canvas, max_objects=None, **proposals
    )
    batches = islice(batches, -(-count // batch_size))
    shown = []
    for _, own in islice(detector.detect_all(detect, variables, batches), count):
        index = len(shown)
        room = len(dataset.source[index]["objects"]["label"])
        shown.append(_on_canvas(data.read(dataset, room, canvas, index), own))
    return shown


def _on_canvas(example: Batch, found: Detections) -> dict[str, Any]:
    """An example's image, its objects and what was found, for pictures."""
    there, count = found.valid, len(example["labels"])
    truth = {"boxes": example["boxes"], "labels": example["labels"], "masks": None}
    ours = {name: getattr(found, name)[there] for name in ("boxes", "labels", "scores")}
    ours["masks"] = None
    if found.masks is not None:
        bits = np.unpackbits(example["instances"], axis=-1, count=count, bitorder="little")
        truth["masks"] = np.moveaxis(bits, -1, 0).astype(bool)
        pasted = _paste(found.masks, found.boxes, *example["image"].shape[:2])
        ours["masks"] = np.asarray(pasted > 0.5)[there]
    return {"image": example["image"], "truth": truth, "found": ours}


def _seconds_per_image(detect: Callable, variables: PyTree, batch: Batch) -> float:
    """The median of some calls; the program is compiled by now."""
    given = {name: batch[name] for name in detector.DETECTED_FROM if name in batch}
    taken = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        jax.block_until_ready(detect(variables, given))
        taken.append((time.perf_counter() - start) / len(batch["image"]))
    return statistics.median(taken)
