"""R-CNN's second and third training, on its finetuned network's features, and its inference."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import flax.core
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from cnn_jax import ops, taps
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.models.fast_rcnn import fast_rcnn
from cnn_jax.models.faster_rcnn import Detections, Settings, select_scored
from cnn_jax.tasks import rcnn
from cnn_jax.tasks.average_precision import box_iou
from cnn_jax.tasks.detection import learnable
from cnn_jax.tasks.rcnn import Linear
from cnn_jax.training.detector import canvas_images, proposals_of, truth_of

Batch = Mapping[str, Array]

# What the machines and the regressions are fitted to: the paper's fc7 and pool5.
MACHINES_LAYER, BOXES_LAYER = "box_head/fc7_relu", "box_head/last_map"

# The margin of a support vector machine above which a region may be an object.
LEAST_MARGIN = -1.5


class Fitted(NamedTuple):
    """machines: a margin a class; boxes: deltas a class. Both without the background."""

    machines: Linear
    boxes: Linear


def region_features(
    variables: PyTree, batch: Batch, num_classes: int, settings: Settings, dataset: Dataset
) -> tuple[Float[Array, "n k f"], Float[Array, "n k g"]]:
    """Return each proposal's features for the machines and for the regressions of boxes."""
    store: dict[str, Array] = {}
    tap = taps.record(store, (MACHINES_LAYER, BOXES_LAYER))
    flax.core.apply(fast_rcnn, flags={"tap": tap})(
        variables,
        canvas_images(batch, dataset.mean, dataset.std),
        num_classes,
        proposals=proposals_of(batch),
        settings=settings,
    )
    shape = (*batch["proposed"].shape, -1)
    return store[MACHINES_LAYER].reshape(shape), store[BOXES_LAYER].reshape(shape)


def fit(
    variables: PyTree,
    batches: Iterable[Batch],
    num_classes: int,
    settings: Settings,
    dataset: Dataset,
    *,
    near: float = 0.6,
) -> Fitted:
    """Fit the machines and the regressions to the regions of these batches, true boxes included.

    Args:
      batches: of data.detection.evaluation_batches, with proposals.
      num_classes: with the background.
      near: the overlap with an object from which on a region learns to become its box.

    Raises:
      UsageError: no region is near an object.
    """
    features_of = jax.jit(
        lambda variables, batch: region_features(variables, batch, num_classes, settings, dataset)
    )
    seen: list[tuple[np.ndarray, ...]] = []
    close: list[tuple[np.ndarray, ...]] = []
    for batch in batches:
        truth = learnable(truth_of(batch, with_masks=False), batch["size"])
        true_boxes, there = np.asarray(truth.boxes), np.asarray(truth.valid)
        regions = np.concatenate([true_boxes, batch["proposals"]], 1)
        counted = np.concatenate([there, batch["proposed"]], 1)
        given = {"image": batch["image"], "size": batch["size"]}
        given |= {"proposals": regions, "proposed": counted}
        for_machines, for_boxes = map(np.asarray, features_of(variables, given))
        for i in np.flatnonzero(batch["weight"]):
            objects, labels = true_boxes[i][there[i]], batch["labels"][i][there[i]] - 1
            boxes = regions[i][counted[i]]
            overlaps = box_iou(objects, boxes)
            own_class = np.full(len(boxes), -1)
            own_class[: len(objects)] = labels
            per_class = rcnn.nearest_objects(overlaps, labels, num_classes - 1)
            seen.append((for_machines[i][counted[i]], per_class, own_class))
            which = np.flatnonzero((overlaps.max(0, initial=0) >= near) & (own_class < 0))
            if len(which):
                own = overlaps[:, which].argmax(0)
                own_features = for_boxes[i][counted[i]][which]
                close.append((own_features, objects[own], boxes[which], labels[own]))
    if not close:
        raise UsageError("no proposal is near an object; take more images or --max_proposals")
    features, objects, boxes, labels = map(np.concatenate, zip(*close, strict=True))
    deltas = np.asarray(ops.encode_boxes(objects, boxes, settings.region_weights))
    return Fitted(
        rcnn.fit_machines(*map(np.concatenate, zip(*seen, strict=True))),
        rcnn.fit_boxes(features, deltas, labels, num_classes - 1),
    )


def create_detector(
    settings: Settings, num_classes: int, dataset: Dataset
) -> Callable[[PyTree, Batch], Detections]:
    """Return detect((variables, fitted), batch) -> Detections, one program for each canvas.

    Scores are the machines' margins through a sigmoid: .5 on the boundary.
    """
    least = float(jax.nn.sigmoid(LEAST_MARGIN))

    @jax.jit
    def detect(learnt: tuple[PyTree, Fitted], batch: Batch) -> Detections:
        variables, fitted = learnt
        found = region_features(variables, batch, num_classes, settings, dataset)
        scores = jax.nn.sigmoid(rcnn.apply(fitted.machines, found[0]))
        deltas = rcnn.apply(fitted.boxes, found[1])
        margins = settings._replace(least_score=least)
        return select_scored(scores, deltas, *proposals_of(batch), batch["size"], margins)

    return detect


def save(path: str | os.PathLike, fitted: Fitted) -> None:
    """Write what was fitted as .npz, in one step."""
    new = Path(path).with_suffix(".new")
    arrays = {
        f"{name}/{field}": array
        for name, each in fitted._asdict().items()
        for field, array in each._asdict().items()
    }
    with new.open("wb") as stream:
        np.savez(stream, **arrays)
    new.replace(path)


def load(path: str | os.PathLike) -> Fitted:
    """Return what `save` wrote."""
    with np.load(path) as saved:
        return Fitted(
            *(
                Linear(*(saved[f"{name}/{field}"] for field in Linear._fields))
                for name in Fitted._fields
            )
        )
