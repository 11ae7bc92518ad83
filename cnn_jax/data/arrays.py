"""A data set of arrays in memory, as a function of one's own returns it."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from cnn_jax.data import datasets
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError


class ArraySource:
    """source[i] has "image", as a PNG file's bytes, and "label"."""

    def __init__(self, images: UInt8[np.ndarray, "n h w c"], labels: Int[np.ndarray, " n"]):
        self._images = images
        self.labels = [int(label) for label in labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        pixels = self._images[index]
        file = io.BytesIO()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image.save(file, "png", compress_level=1)
        return {"image": file.getvalue(), "label": self.labels[index]}


def from_arrays(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Return the data set of these images, of 1, 3 or 4 channels, and these labels.

    Args:
      labels: numbers of class_names, from 0.
      mean, std: of each channel over the training images, in 0..1 units, the same for all splits;
        by default ImageNet's.

    Raises:
      UsageError: arrays of other shapes, dtypes or numbers.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UsageError(
            f"images are {images.dtype} {images.shape}; give uint8, [number, height, width, "
            "channels]"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UsageError(
            f"labels are {labels.dtype} {labels.shape}; give integers [{len(images)}], one an image"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise UsageError(
            f"labels go from {labels.min()} to {labels.max()}; there are {len(class_names)} classes"
        )
    dataset = Dataset(
        name="arrays",
        split="train",
        source=ArraySource(images, labels),
        num_classes=len(class_names),
        class_names=tuple(class_names),
        image_shape=(*images.shape[1:3], 3),
        mean=datasets.IMAGENET[0],
        std=datasets.IMAGENET[1],
    )
    return datasets.read_as(dataset, images.shape[-1], mean, std)
