"""Average precision of detections: PASCAL VOC's two definitions, for boxes and for masks.

Everingham et al. 2010, "The PASCAL visual object classes challenge", section 4.2. COCO's is that of
its own evaluator, pycocotools.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# The precision's mean at recalls 0, .1, ..., 1 (VOC until 2009), or the area under it (since).
ELEVEN_POINTS = "11-point"
AREA = "area"


class Found(NamedTuple):
    """The detections of one image.

    Regions are boxes [d, 4], masks [d, h, w], or an array [d] of masks as run-length encodings.
    """

    regions: Any
    scores: Float[np.ndarray, " d"]
    labels: Int[np.ndarray, " d"]


class Objects(NamedTuple):
    """The true objects of one image; difficult ones count neither as found nor as missed.

    areas: in pixels, which COCO's sizes go by; None: the regions'.
    """

    regions: Any
    labels: Int[np.ndarray, " m"]
    difficult: Bool[np.ndarray, " m"]
    areas: Float[np.ndarray, " m"] | None = None


def pixel_iou(
    one: Float[np.ndarray, "n 4"], other: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
    """Return the overlaps of boxes whose last pixels count (x2 - x1 + 1 wide), as VOC has them."""
    one, other = np.reshape(one, (-1, 4)), np.reshape(other, (-1, 4))
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    intersection = np.prod(np.maximum(high - low + 1, 0), -1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2] + 1, -1) for boxes in (one, other)]
    return intersection / (areas[0][:, None] + areas[1][None] - intersection)


def box_iou(
    one: Float[np.ndarray, "n 4"], other: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
    """Return the overlaps of boxes whose x2 and y2 lie beyond the last pixel, as COCO has them."""
    return pixel_iou(one - np.array([0, 0, 1, 1]), other - np.array([0, 0, 1, 1]))


def encoded(masks: Any) -> list[dict]:
    """Return masks [n, h, w], or [n] run-length encodings, as run-length encodings."""
    return [
        one if isinstance(one, dict) else run_lengths.encode(np.asfortranarray(one, np.uint8))
        for one in masks
    ]


def mask_iou(one: Any, other: Any) -> Float[np.ndarray, "n m"]:
    """Return the overlaps of masks, 0 of two empty ones; see Found for what they are given as."""
    overlaps = run_lengths.iou(encoded(one), encoded(other), [False] * len(other))
    return np.nan_to_num(np.reshape(overlaps, (len(one), len(other))))


def mark(
    found: Sequence[Found],
    objects: Sequence[Objects],
    label: int,
    threshold: float,
    iou: Callable[[Any, Any], Float[np.ndarray, "n m"]],
) -> tuple[Float[np.ndarray, " d"], Bool[np.ndarray, " d"], int]:
    """Return a class's detections by falling score, whether each is right, and its objects' number.

    A detection belongs to the object of its image that it overlaps most. It is right if the overlap
    reaches the threshold and no surer one is right about that object, and left out if that object
    is difficult.
    """
    scores, right = [], []
    for detections, truth in zip(found, objects, strict=True):
        own, there = detections.labels == label, truth.labels == label
        regions = detections.regions[own]
        order = np.argsort(-detections.scores[own], kind="stable")
        overlaps = iou(regions, truth.regions[there])
        difficult, taken = truth.difficult[there], np.zeros(there.sum(), bool)
        for i in order:
            best = overlaps[i].argmax() if len(taken) else -1
            hit = best >= 0 and overlaps[i, best] >= threshold
            if hit and difficult[best]:
                continue
            scores.append(detections.scores[own][i])
            right.append(bool(hit and not taken[best]))
            if hit:
                taken[best] = True
    count = sum(int(((o.labels == label) & ~o.difficult).sum()) for o in objects)
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    return np.asarray(scores, float)[order], np.asarray(right, bool)[order], count


def average_precision(right: Bool[np.ndarray, " d"], count: int, definition: str = AREA) -> float:
    """Return the average precision of detections in falling order of score.

    Args:
      right: whether each is.  count: the objects that there are; without any, NaN is returned.
      definition: AREA or ELEVEN_POINTS; of both, the precision at a recall is the best at that
        recall or a higher one.
    """
    if definition not in (AREA, ELEVEN_POINTS):
        raise ValueError(f"definition {definition!r} is neither {AREA!r} nor {ELEVEN_POINTS!r}")
    if not count:
        return float("nan")
    hits = np.cumsum(right)
    recall = hits / count
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if definition == AREA:
        return float(np.sum(np.diff(recall, prepend=0) * best))
    at = np.searchsorted(recall, np.arange(11) / 10 - 1e-12)
    return float(np.mean([best[i] if i < len(best) else 0 for i in at]))


def mean_average_precision(
    found: Sequence[Found],
    objects: Sequence[Objects],
    class_names: Sequence[str],
    *,
    threshold: float = 0.5,
    definition: str = AREA,
    iou: Callable[[Any, Any], Float[np.ndarray, "n m"]] = pixel_iou,
) -> dict[str, Any]:
    """Return "map", the mean over the classes that have objects, and "per_class": None of others.

    Args:
      class_names: from the background, class 0, on.
    """
    values = {}
    for label, name in enumerate(class_names[1:], 1):
        _, right, count = mark(found, objects, label, threshold, iou)
        values[name] = average_precision(right, count, definition) if count else None
    known = [value for value in values.values() if value is not None]
    return {"map": float(np.mean(known)) if known else None, "per_class": values}


def coco_metrics(
    found: Sequence[Found], objects: Sequence[Objects], *, masks: bool = False
) -> dict[str, float | None]:
    """Return COCO's twelve metrics by name, of pycocotools' own evaluation.

    AP over overlaps of .5 to .95, at .5 and at .75, and of small, medium and large objects, whose
    areas are below 32 x 32, up to 96 x 96 and above: so regions and areas must be in the pixels of
    the original images. Then recalls: of 1, 10 and 100 detections an image, and by size. None where
    no object decides it. Difficult objects are COCO's crowds.

    Args:
      masks: regions are masks.
    """

    def region(x, area=None):
        if masks:
            own = {"segmentation": x, "bbox": run_lengths.toBbox(x).tolist()}
            return own | {"area": float(run_lengths.area(x) if area is None else area)}
        x1, y1, x2, y2 = map(float, x)
        own = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        return own | {"area": float((x2 - x1) * (y2 - y1) if area is None else area)}

    regions = encoded if masks else list
    annotations = [
        {"image_id": i, "category_id": int(label), "iscrowd": int(crowd), **region(x, area)}
        for i, truth in enumerate(objects)
        for x, label, crowd, area in zip(
            regions(truth.regions),
            truth.labels,
            truth.difficult,
            [None] * len(truth.labels) if truth.areas is None else truth.areas,
            strict=True,
        )
    ]
    results = [
        {"image_id": i, "category_id": int(label), "score": float(score), **region(x)}
        for i, each in enumerate(found)
        for x, score, label in zip(regions(each.regions), each.scores, each.labels, strict=True)
    ]
    labels = sorted({each["category_id"] for each in annotations})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table
        truth, detections = COCO(), COCO()
        # run lengths hold the images' sizes, which only polygons would need here
        images = [{"id": i, "height": 0, "width": 0} for i in range(len(objects))]
        for coco, entries in ((truth, annotations), (detections, results)):
            coco.dataset = {
                "images": images,
                "categories": [{"id": label} for label in labels],
                "annotations": [{"id": i, "iscrowd": 0, **x} for i, x in enumerate(entries, 1)],
            }
            coco.createIndex()
        evaluation = COCOeval(truth, detections, "segm" if masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = (None if value == -1 else float(value) for value in evaluation.stats)
    return dict(zip(COCO_METRICS, stats, strict=True))


COCO_METRICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
