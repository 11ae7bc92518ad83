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
from cnn_jax.data import datasets, decoding, pipeline
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.pipeline import Batch
from cnn_jax.data.preprocessing import LONGEST, RESAMPLING, Preprocessing, to_array
from cnn_jax.data.preprocessing import validate as validate_preprocessing
from cnn_jax.data.segmentation import validate
from cnn_jax.errors import UsageError

MOST = 8  # boxes of an image

Window = tuple[float, float, float, float]  # left, top, right, bottom in an image's pixels


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
    image = decoding.decode(example["image"], dataset.image_shape[-1])
    own = np.asarray(example["objects"]["label"]) == example["label"]
    boxes = np.asarray(example["objects"]["bbox"], np.float32).reshape(-1, 4)
    return image, np.int32(example["label"]), boxes[own][:, [1, 0, 3, 2]]  # TFDS: y before x


def seen_through(
    image: Image.Image,
    boxes: Float[np.ndarray, "k 4"],
    window: Window,
    mirrored: tuple[bool, bool],
    size: int,
    resample: int,
) -> tuple[Image.Image, Float[np.ndarray, "m 4"]]:
    """Return what lies in the window as a square of size pixels, black outside the image.

    Args:
      mirrored: left and right, top and bottom.
    """
    left, top, right, bottom = window
    scale = np.tile(image.size, 2)
    boxes = (boxes * scale - [left, top, left, top]) / np.tile([right - left, bottom - top], 2)
    if window != (0, 0, size, size) or image.size != (size, size):
        image = _resized_window(image, tuple(map(round, window)), size, resample)
    for axis, mirror in enumerate(
        (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
    ):
        if mirrored[axis]:
            image = image.transpose(mirror)
            boxes[:, [axis, axis + 2]] = 1 - boxes[:, [axis + 2, axis]]
    return image, largest_first(boxes)


def _resized_window(
    image: Image.Image, window: tuple[int, int, int, int], size: int, resample: int
) -> Image.Image:
    left, top, right, bottom = window
    if max(image.size) <= LONGEST * min(image.size):
        return image.crop(window).resize((size, size), resample)
    # Along the longer side first: the square around 20000x1 pixels would take a gigabyte.
    if image.width > image.height:
        image = image.crop((left, 0, right, image.height)).resize((size, image.height), resample)
        return image.crop((0, top, size, bottom)).resize((size, size), resample)
    image = image.crop((0, top, image.width, bottom)).resize((image.width, size), resample)
    return image.crop((left, 0, right, size)).resize((size, size), resample)


def whole(image: Image.Image) -> Window:
    """The square that begins at the image's corner and holds all of it."""
    return (0, 0, max(image.size), max(image.size))


def random_window(
    image: Image.Image, rng: np.random.Generator, options: Augmentation, size: int
) -> Window:
    """The whole; or with options.crop "pad" the whole, moved, with "resized" a random crop."""
    if options.crop == "resized":
        scale, ratio = options.crop_scale, options.crop_ratio
        return augmentations.resized_crop_box(*image.size, rng, scale, ratio)
    left, top, right, bottom = whole(image)
    if options.crop == "pad":
        x, y = rng.integers(-options.pad, options.pad + 1, 2) * right / size
        return (left + x, top + y, right + x, bottom + y)
    return (left, top, right, bottom)


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
    read = pipeline.cached(partial(_read, dataset), dataset)
    resample = RESAMPLING[augmentation.interpolation]

    def example(index: int, epoch: int, rng: np.random.Generator) -> Batch:
        image, label, boxes = read(index)
        window = random_window(image, rng, augmentation, image_size)
        flips = (augmentation.flip, augmentation.vertical_flip)
        mirrored = tuple(flip and rng.random() < 0.5 for flip in flips)
        image, boxes = seen_through(image, boxes, window, mirrored, image_size, resample)
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
        image, boxes = seen_through(image, boxes, whole(image), (False, False), size, resample)
        return {"image": to_array(image), "label": label, "boxes": boxes, "weight": np.float32(1)}

    return pipeline.ordered_batches(dataset, example, padding, **settings)
