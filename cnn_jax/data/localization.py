"""Images with a class and that class's boxes: joint augmentation, batches.

Any prepared data set of `datasets.load` will do whose images have a "label" and whose "objects"
have a "bbox" and a "label", such as the drawn shapes. Boxes are (x1, y1, x2, y2) in shares of the
image that is yielded, the largest first, filled up to MOST with boxes of no area; what an image's
crop cuts off of a box is gone. An image may have none.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from cnn_jax.data import augmentation as augmentations
from cnn_jax.data import datasets, geometry, pipeline
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.pipeline import Batch
from cnn_jax.data.preprocessing import RESAMPLING, Preprocessing, to_array
from cnn_jax.data.preprocessing import validate as validate_preprocessing
from cnn_jax.data.segmentation import validate
from cnn_jax.errors import UsageError

MOST = 8  # boxes of an image


def load(name: str, split: str, data_dir: str | None = None) -> Dataset:
    """Open one split of a data set whose images have a label and objects; see datasets.load.

    Raises:
      UsageError: unknown names, or a data set without objects.
    """
    dataset = datasets.load(name, split, data_dir)
    if len(dataset.source) and not {"objects", "label"} <= dataset.source[0].keys():
        raise UsageError(f"{name} has no labelled images with objects' boxes; take shapes")
    return dataset


def largest_first(boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "m 4"]:
    """Cut the boxes at the image's edges, order them by area and fill up to MOST."""
    boxes = np.clip(np.asarray(boxes, np.float32).reshape(-1, 4), 0, 1)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas = sides.prod(axis=1)
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0][:MOST]
    return np.concatenate([boxes[order], np.zeros((MOST - len(order), 4), np.float32)])


def _read(dataset: Dataset, index: int) -> tuple[Image.Image, Int, Float[np.ndarray, "k 4"]]:
    example = dataset.source[index]
    image = pipeline.decoded(dataset, example, index)
    own = np.asarray(example["objects"]["label"]) == example["label"]
    boxes = np.asarray(example["objects"]["bbox"], np.float32).reshape(-1, 4)
    return image, np.int32(example["label"]), boxes[own][:, [1, 0, 3, 2]]  # TFDS: y before x


def _placed(image, boxes, placement, resample):
    """The canvas with the image, black beside it, and its boxes in shares of the canvas."""
    boxes = geometry.placed_boxes(boxes, image.size, placement) / placement.canvas
    fill = (0,) * len(image.getbands())
    return geometry.placed(image, placement, resample, fill), largest_first(boxes)


def train_batches(
    dataset: Dataset, *, image_size: int, augmentation: Augmentation, **settings: Any
) -> Iterator[Batch]:
    """Shuffled and augmented batches without end, as pipeline.train_batches yields them.

    Args:
      settings: the others of pipeline.train_batches: batch_size, seed, start_step, ...

    Yields:
      {"image": uint8 [b, h, w, c], "label": int32 [b], "boxes": float32 [b, MOST, 4]}.
    """
    validate(augmentation)
    validate_preprocessing(Preprocessing(image_size))
    read = pipeline.readable(dataset, pipeline.cached(partial(_read, dataset), dataset))
    resample = RESAMPLING[augmentation.interpolation]

    def example(index: int, epoch: int, rng: np.random.Generator) -> Batch:
        image, label, boxes = read(index)
        placement = geometry.random_placement(image.size, rng, augmentation, image_size)
        image, boxes = _placed(image, boxes, placement, resample)
        if any(augmentation.color_jitter):
            image = augmentations.color_jitter(image, rng, *augmentation.color_jitter)
        return {"image": to_array(image), "label": label, "boxes": boxes}

    return pipeline.shuffled_batches(dataset, example, **settings)


def evaluation_batches(
    dataset: Dataset, *, preprocessing: Preprocessing, **settings: Any
) -> Iterator[Batch]:
    """Every example once, in order, whole in squares of preprocessing.image_size pixels.

    Args:
      settings: the others of pipeline.evaluation_batches: batch_size, num_threads, ...

    Yields:
      As train_batches, and "weight": float32 [b], 0 for the padding that fills the last batch.
    """
    validate_preprocessing(preprocessing)
    size, channels = preprocessing.image_size, dataset.image_shape[-1]
    resample = RESAMPLING[preprocessing.interpolation]
    padding = {
        "image": np.zeros((size, size, channels), np.uint8),
        "label": np.int32(0),
        "boxes": np.zeros((MOST, 4), np.float32),
        "weight": np.float32(0),
    }

    def example(index: int) -> Batch:
        image, label, boxes = _read(dataset, index)
        image, boxes = _placed(image, boxes, geometry.fitted(image.size, size), resample)
        return {"image": to_array(image), "label": label, "boxes": boxes, "weight": np.float32(1)}

    return pipeline.ordered_batches(dataset, example, padding, **settings)
