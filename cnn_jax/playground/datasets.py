"""The data sets inside of the page: small images as compressed bytes."""

import base64
import zlib
from typing import Any, NamedTuple

import numpy as np
import sklearn.datasets
from jaxtyping import Int, UInt8

from cnn_jax.data.builders import digits as digits_builder
from cnn_jax.data.builders import shapes as shapes_builder
from cnn_jax.data.datasets import STATISTICS

SHAPE_CLASSES = ("circle", "square", "triangle", "cross", "ring", "crescent")
SHAPE_SIZE = 16
SHAPES_OF_A_CLASS = {"train": 160, "test": 40}


class Embedded(NamedTuple):
    """Images with labels, the training examples before the test examples.

    Attributes:
      images: uint8 [n, h, w, c], of one channel or of three.
      labels: the class of each, 0..classes - 1.
      train: how many of them are to train on.
      mean, std: of the channels, in 0..1 units, by which the page normalises.
    """

    name: str
    class_names: tuple[str, ...]
    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, "n"]
    train: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what the page's JavaScript reads: the bytes in base 64, deflated."""
        return {
            "name": self.name,
            "classes": self.class_names,
            "shape": self.images.shape[1:],
            "train": self.train,
            "count": len(self.images),
            "mean": self.mean,
            "std": self.std,
            "images": _packed(self.images),
            "labels": _packed(self.labels.astype(np.uint8)),
        }


def _packed(values: UInt8[np.ndarray, "..."]) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode("ascii")


def digits() -> Embedded:
    """Return scikit-learn's digits, 8x8x1, split as the data set `digits` is."""
    found = sklearn.datasets.load_digits()
    in_test = digits_builder.stratified_mask(found.target, digits_builder.TEST_FRACTION)
    order = np.concatenate([np.flatnonzero(~in_test), np.flatnonzero(in_test)])
    levels = np.round(found.images[order] * (255 / 16)).astype(np.uint8)[..., None]
    names = tuple(map(str, range(10)))
    train = int((~in_test).sum())
    return Embedded("digits", names, levels, found.target[order], train, *STATISTICS["digits"])


def shapes() -> Embedded:
    """Return single drawn shapes in colour, 16x16x3, six classes, the same on every call."""
    random = np.random.default_rng(0)
    classes = range(len(SHAPE_CLASSES))
    labels = np.concatenate(
        [random.permutation(np.repeat(classes, count)) for count in SHAPES_OF_A_CLASS.values()]
    )
    images = np.stack(
        [shapes_builder.draw_shape(random, SHAPE_CLASSES[label], SHAPE_SIZE) for label in labels]
    )
    train = SHAPES_OF_A_CLASS["train"] * len(SHAPE_CLASSES)
    pixels = images[:train] / 255
    mean, std = (tuple(map(float, f(pixels, (0, 1, 2)))) for f in (np.mean, np.std))
    return Embedded("shapes", SHAPE_CLASSES, images, labels, train, mean, std)
