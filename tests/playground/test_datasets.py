"""The page's data sets are the package's own."""

import numpy as np

from cnn_jax.data import datasets as registered
from cnn_jax.data import decoding
from cnn_jax.playground import datasets


def test_digits_are_those_of_the_data_set(tmp_path):
    embedded = datasets.digits()
    test = registered.load("digits", "test", str(tmp_path))
    found = sorted((example["index"], example) for example in map(dict, test.source))
    assert len(found) == len(embedded.images) - embedded.train
    for (_, example), image, label in zip(
        found, embedded.images[embedded.train :], embedded.labels[embedded.train :], strict=True
    ):
        assert example["label"] == label
        assert np.array_equal(np.asarray(decoding.decode(example["image"], 1)), image[..., 0])


def test_shapes_are_drawn_the_same_every_time():
    first, second = datasets.shapes(), datasets.shapes()
    assert np.array_equal(first.images, second.images)
    assert np.bincount(first.labels[: first.train]).tolist() == [160] * 6
    assert np.bincount(first.labels[first.train :]).tolist() == [40] * 6
