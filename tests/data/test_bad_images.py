"""Images that cannot be decoded: named, or passed over and counted."""

import dataclasses
import io
from itertools import islice

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.datasets import Dataset
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UnreadableImage, UsageError
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.task import TASKS

BAD = {2, 3, 9}


def scenes(skipped=None, bad=BAD):
    """Ten grey images, each of its own shade, of which some are no images."""

    def encoded(index):
        file = io.BytesIO()
        Image.new("L", (8, 8), 20 * index).save(file, "PNG")
        return file.getvalue()[: 20 if index in bad else None]

    examples = [
        {
            "image": encoded(i),
            "label": i % 2,
            "mask": np.full((8, 8), i % 2, np.uint8),
            "objects": {"bbox": np.float32([[0, 0, 1, 1]]), "label": np.array([i % 2])},
        }
        for i in range(10)
    ]
    stats = (0.5,) * 3, (0.25,) * 3
    return Dataset("scenes", "train", examples, 2, ("a", "b"), (8, 8, 3), *stats, skipped)


def batches(task, dataset):
    config = TrainConfig(batch_size=5, image_size=8, max_objects=1, num_threads=0)
    return TASKS[task].train_batches(dataset, config, image_size=8)


@pytest.mark.parametrize("task", TASKS)
def test_training_names_the_image_and_ends(task):
    with pytest.raises(UnreadableImage, match=r"example \d of scenes \(train\): "):
        list(islice(batches(task, scenes()), 2))


@pytest.mark.parametrize("task", TASKS)
def test_training_takes_the_next_image_in_its_place_and_counts(task):
    skipped = set()
    found = list(islice(batches(task, scenes(skipped)), 2))
    shades = sorted((np.concatenate([b["image"] for b in found])[:, 0, 0, 0] // 20).tolist())
    assert shades == [0, 0, 1, 4, 4, 4, 5, 6, 7, 8]
    assert len(skipped) == len(BAD)
    assert all("of scenes (train)" in line for line in skipped)


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_counts_what_can_be_decoded(task):
    skipped = set()
    size = {"canvas": 8, "max_objects": 1} if task == "detection" else {}
    size = size or {"preprocessing": Preprocessing(8), "num_threads": 0}
    found = list(TASKS[task].evaluation_batches(scenes(skipped), batch_size=4, **size))
    weights = np.concatenate([batch["weight"] for batch in found])
    shades = np.concatenate([batch["image"] for batch in found])[:, 0, 0, 0] // 20
    assert shades[weights > 0].tolist() == [0, 1, 4, 5, 6, 7, 8]
    assert len(skipped) == len(BAD)


def test_a_data_set_without_a_single_image_is_an_error():
    with pytest.raises(UsageError, match="no image of scenes"):
        next(batches("classification", scenes(set(), bad=set(range(10)))))


def test_a_run_tells_what_it_skipped(draw_pets, tmp_path):
    folder = draw_pets(tmp_path / "pets", red=(1, 0, 0), blue=(0, 0, 1))
    for i in range(4):
        file = tmp_path / "pets" / "red" / f"{i}.png"
        file.write_bytes(file.read_bytes()[: 60 if i % 2 else 5])
    config = TrainConfig(
        model="lenet5",
        model_options="filters=(4,), neurons=(8,)",
        dataset=folder,
        image_size=8,
        steps=6,
        batch_size=8,
    )
    devices = jax.devices()[:1]
    with pytest.raises(UsageError, match=r"red/\d\.png"):
        loop.train(config, tmp_path / "run", devices=devices)
    skips = dataclasses.replace(config, bad_images="skip")
    said = []
    result = loop.train(skips, tmp_path / "run", loop.Callbacks(say=said.append), devices)
    assert result.step == 6
    assert sum(result.skipped.values()) == 4
    assert sum(line.startswith("skipped ") for line in said) == 4
