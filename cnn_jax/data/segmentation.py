"""Images with a class for every pixel, of the data sets in data.masks: augmentation, batches.

Classes are numbered from 0, which is the ground where a data set has one; IGNORED stands for pixels
that count in neither loss nor metrics. Whatever moves an image's pixels moves its mask's, without
mixing classes: masks are resized by the nearest pixel, and what lies outside an image is ignored.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from cnn_jax.data import augmentation as augmentations
from cnn_jax.data import geometry, pipeline
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.pipeline import Batch
from cnn_jax.data.preprocessing import RESAMPLING, Preprocessing, to_array
from cnn_jax.data.preprocessing import validate as validate_preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.tasks.segmentation import IGNORED


def class_counts(dataset: Dataset) -> Int[np.ndarray, " classes"]:
    """Return the number of pixels of each class, in all masks as they are in the files."""
    counts = np.zeros(256, np.int64)
    for i in range(len(dataset.source)):
        counts += np.bincount(dataset.source[i]["mask"].ravel(), minlength=256)
    return counts[: dataset.num_classes]


def augment(
    image: Image.Image,
    mask: Image.Image,
    rng: np.random.Generator,
    options: Augmentation,
    *,
    image_size: int,
    fill: Sequence[int],
) -> tuple[Image.Image, Image.Image]:
    """Scale, crop and mirror image and mask together, then jitter the image's colours.

    As geometry.random_placement says; beside an image its mask is IGNORED.
    """
    placement = geometry.random_placement(image.size, rng, options, image_size)
    image, mask = _placed(image, mask, placement, fill, RESAMPLING[options.interpolation])
    if any(options.color_jitter):
        image = augmentations.color_jitter(image, rng, *options.color_jitter)
    return image, mask


def _placed(image, mask, placement, fill, resample):
    """Both on their canvases."""
    image = geometry.placed(image, placement, resample, fill)
    return image, geometry.placed(mask, placement, Image.Resampling.NEAREST, [IGNORED])


def validate(options: Augmentation) -> None:
    """Raise UsageError for options that are out of range or mean nothing to masks."""
    augmentations.validate(options)
    for name, off in (
        ("alternating_flip", False),
        ("policy", "none"),
        ("erasing", 0),
        ("mixup", 0),
        ("cutmix", 0),
    ):
        if getattr(options, name) != off:
            raise UsageError(
                f"--{name} is not for masks; use --crop, --flip, --vertical_flip and --color_jitter"
            )


def _read(dataset: Dataset, index: int) -> tuple[Image.Image, Image.Image]:
    example = dataset.source[index]
    place = example.get("filename", f"example {index} of {dataset.name} ({dataset.split})")
    image = pipeline.decoded(dataset, example, index)
    mask = Image.fromarray(example["mask"])
    if mask.size != image.size:
        raise UsageError(
            f"{place}: a mask of {mask.width}x"
            f"{mask.height} does not fit an image of {image.width}x{image.height}; mend one of them"
        )
    return image, mask


def train_batches(
    dataset: Dataset,
    *,
    image_size: int,
    augmentation: Augmentation,
    **settings: Any,
) -> Iterator[Batch]:
    """Shuffled and augmented batches without end, as pipeline.train_batches yields them.

    Args:
      settings: the others of pipeline.train_batches: batch_size, seed, start_step, ...

    Yields:
      {"image": uint8 [b, h, w, c], "mask": uint8 [b, h, w]}.

    Raises:
      UsageError: arguments that do not fit; (while iterating) an image or mask that does not.
    """
    validate(augmentation)
    validate_preprocessing(Preprocessing(image_size))
    fill = tuple(map(int, pipeline.fill_colour(dataset)))
    channels = dataset.image_shape[-1] + 1
    read = pipeline.readable(dataset, pipeline.cached(partial(_read, dataset), dataset, channels))

    def example(index: int, epoch: int, rng: np.random.Generator) -> Batch:
        image, mask = read(index)
        image, mask = augment(image, mask, rng, augmentation, image_size=image_size, fill=fill)
        return {"image": to_array(image), "mask": np.asarray(mask)}

    return pipeline.shuffled_batches(dataset, example, **settings)


def evaluation_batches(
    dataset: Dataset, *, preprocessing: Preprocessing, **settings: Any
) -> Iterator[Batch]:
    """Every example once, in order, fitted into squares of preprocessing.image_size pixels.

    Args:
      settings: the others of pipeline.evaluation_batches: batch_size, num_threads, ...

    Yields:
      {"image": uint8 [b, h, w, c], "mask": uint8 [b, h, w], "weight": float32 [b]}: 1 for an
      example, 0 for the padding (all of it ignored) that fills the last batch.
    """
    validate_preprocessing(preprocessing)
    size, channels = preprocessing.image_size, dataset.image_shape[-1]
    fill = tuple(map(int, pipeline.fill_colour(dataset)))
    resample = RESAMPLING[preprocessing.interpolation]
    padding = {
        "image": np.zeros((size, size, channels), np.uint8),
        "mask": np.full((size, size), IGNORED, np.uint8),
        "weight": np.float32(0),
    }

    def example(index: int) -> Batch:
        image, mask = _read(dataset, index)
        placement = geometry.fitted(image.size, size)
        image, mask = _placed(image, mask, placement, fill, resample)
        return {"image": to_array(image), "mask": np.asarray(mask), "weight": np.float32(1)}

    return pipeline.ordered_batches(dataset, example, padding, **settings)
