"""Examples with objects: boxes, labels and masks move as their image does."""

import io

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import detection as data
from cnn_jax.data.builders import shapes
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="png")
    return file.getvalue()


def example(seed: int, size: int = 64) -> dict:
    """Return a drawn scene as TFDS gives it: boxes (y1, x1, y2, x2) as shares of the image."""
    scene = shapes.draw_scene(np.random.default_rng(seed), size)
    rows = [np.argwhere(scene.instances == i + 1) for i in range(len(scene.labels))]
    return {
        "image": png(scene.image),
        "objects": {
            "bbox": np.array([[*x.min(0), *(x.max(0) + 1)] for x in rows], np.float32) / size,
            "label": np.array(scene.labels),
            "instance": np.arange(1, len(scene.labels) + 1),
        },
        "instance_mask": png(scene.instances),
    }


def dataset(examples) -> Dataset:
    names = ("background", *shapes.CLASSES)
    return Dataset("shapes", "test", examples, 9, names, (64, 64, 3), (0.5,) * 3, (0.2,) * 3)


SCENES = dataset([example(seed) for seed in range(5)])


def box_of(mask: np.ndarray) -> list[int]:
    rows = np.argwhere(mask)
    return [*rows.min(0)[::-1], *(rows.max(0) + 1)[::-1]]


def check_boxes_bound_their_masks(found) -> None:
    for i in np.flatnonzero(found["valid"]):
        np.testing.assert_allclose(
            found["boxes"][i], box_of(found["instances"][..., 0] >> i & 1), atol=1e-4
        )


def test_boxes_bound_their_masks_and_padding_is_marked():
    for index in range(5):
        found = data.read(SCENES, 6, 64, index)
        count = len(SCENES.source[index]["objects"]["label"])
        assert found["valid"].sum() == count
        assert (found["labels"][:count] == SCENES.source[index]["objects"]["label"] + 1).all()
        assert (found["boxes"][count:] == 0).all()
        check_boxes_bound_their_masks(found)


def test_flipping_keeps_boxes_around_their_masks_and_twice_is_nothing():
    found = data.read(SCENES, 6, 64, 1)
    flipped = data.flip(found)
    check_boxes_bound_their_masks(flipped)
    assert (flipped["image"] == found["image"][:, ::-1]).all()
    for name, array in data.flip(flipped).items():
        np.testing.assert_allclose(array, found[name], atol=1e-4)


def test_an_image_is_scaled_into_the_upper_left_corner():
    tall = SCENES.source[0] | {"image": png(np.full((40, 20, 3), 200, np.uint8))}
    tall.pop("instance_mask")
    found = data.read(dataset([tall]), 6, 32, 0)
    assert list(found["size"]) == [32, 16]
    assert (found["image"][:, :16] == 200).all()
    assert (found["image"][:, 16:] == 0).all()
    y1, x1, y2, x2 = tall["objects"]["bbox"][0]
    np.testing.assert_allclose(found["boxes"][0], [16 * x1, 32 * y1, 16 * x2, 32 * y2], rtol=1e-6)


def test_an_image_without_objects_is_an_example_too():
    empty = SCENES.source[0] | {"objects": {"bbox": np.zeros((0, 4)), "label": np.zeros(0, int)}}
    empty["objects"]["instance"] = np.zeros(0, int)
    found = data.flip(data.read(dataset([empty]), 3, 64, 0))
    assert not found["valid"].any()
    assert not found["instances"].any()


def test_proposals_come_with_an_example_and_move_as_its_image_does():
    boxes = np.float32([[3, 4, 20, 30], [0, 0, 64, 64], [5, 5, 6, 6]])
    found = data.with_proposals(data.read(SCENES, 6, 64, 0), boxes, 2)
    assert list(found["proposed"]) == [True, True]
    np.testing.assert_array_equal(found["proposals"], boxes[:2])
    found = data.flip(data.with_proposals(found, boxes[:1], 2))
    assert list(found["proposed"]) == [True, False]
    np.testing.assert_array_equal(found["proposals"], [[44, 4, 61, 30], [0, 0, 0, 0]])


def test_each_example_of_a_batch_has_its_own_proposals():
    own = [np.full((i + 1, 4), i, np.float32) for i in range(5)]
    settings = {"batch_size": 5, "canvas": 64, "max_objects": 6}
    given = {"proposals": own, "max_proposals": 3}
    (batch,) = data.evaluation_batches(SCENES, **settings, **given)
    assert list(batch["proposed"].sum(1)) == [1, 2, 3, 3, 3]
    assert (batch["proposals"][:, 0, 0] == np.arange(5)).all()
    trained = data.train_batches(SCENES, **settings, **given, flips=False, seed=0, num_threads=0)
    batch = next(trained)
    for image, boxes in zip(batch["image"], batch["proposals"], strict=True):
        index = int(boxes[0, 0])
        np.testing.assert_array_equal(image, data.read(SCENES, 6, 64, index)["image"])


def test_training_batches_repeat_by_the_seed_and_start_anywhere():
    settings = {"batch_size": 2, "canvas": 64, "max_objects": 6, "flips": True, "num_threads": 0}

    def first(count, **more):
        batches = data.train_batches(SCENES, **settings, **more)
        return [next(batches) for _ in range(count)]

    one, again, later = first(3, seed=0), first(3, seed=0), first(1, seed=0, start_step=2)
    for name in one[0]:
        np.testing.assert_array_equal(one[2][name], again[2][name])
        np.testing.assert_array_equal(one[2][name], later[0][name])
    assert (one[0]["image"] != first(1, seed=1)[0]["image"]).any()


def test_hosts_divide_each_batch_and_never_read_the_same_examples():
    settings = {"canvas": 64, "max_objects": 6, "flips": True, "num_threads": 0, "seed": 3}
    together = data.train_batches(SCENES, batch_size=4, **settings)
    hosts = [
        data.train_batches(SCENES, batch_size=4, process_index=i, process_count=2, **settings)
        for i in range(2)
    ]
    for _ in range(6):  # epochs of five examples follow each other within a batch
        whole = next(together)
        for i, batch in enumerate(map(next, hosts)):
            assert len(batch["image"]) == 2
            for name, values in batch.items():
                np.testing.assert_array_equal(values, whole[name][2 * i : 2 * i + 2])


def test_batches_of_one_example_come_without_end():
    settings = {"canvas": 64, "max_objects": 6, "flips": False, "seed": 0, "num_threads": 0}
    ones, pairs = (data.train_batches(SCENES, batch_size=size, **settings) for size in (1, 2))
    for _ in range(4):
        pair = next(pairs)
        for i in range(2):
            np.testing.assert_array_equal(next(ones)["image"][0], pair["image"][i])


def test_evaluation_counts_every_example_once():
    batches = list(data.evaluation_batches(SCENES, batch_size=2, canvas=64, max_objects=6))
    assert [list(batch["weight"]) for batch in batches] == [[1, 1], [1, 1], [1, 0]]


def test_mistakes_are_named_in_one_line():
    count = len(SCENES.source[0]["objects"]["label"])
    with pytest.raises(UsageError, match=r"example 0 of shapes .* give --max_objects="):
        data.read(SCENES, count - 1, 64, 0)
    odd = SCENES.source[0] | {"instance_mask": png(np.zeros((8, 8), np.uint8))}
    with pytest.raises(UsageError, match=r"a mask of 8x8 does not fit an image of 64x64"):
        data.read(dataset([odd]), 6, 64, 0)
