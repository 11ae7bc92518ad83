"""Images with boxes: a box bounds its object through every crop, shift and mirroring."""

import io

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import localization
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import IMAGENET, Dataset
from cnn_jax.data.preprocessing import Preprocessing

SIDE = 32


def example(boxes, labels, label=0, height=SIDE, width=SIDE):
    """A black image whose objects are white; boxes in pixels, (x1, y1, x2, y2)."""
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    shares = [[y1 / height, x1 / width, y2 / height, x2 / width] for x1, y1, x2, y2 in boxes]
    objects = {"bbox": np.array(shares, np.float32), "label": np.array(labels, np.int64)}
    return {"image": file.getvalue(), "label": label, "objects": objects}


def dataset_of(examples):
    return Dataset("toy", "train", examples, 2, ("a", "b"), (None, None, 3), *IMAGENET)


def batch_of(examples, augmentation=Augmentation(), size=SIDE, **settings):  # noqa: B008
    stream = localization.train_batches(
        dataset_of(examples),
        image_size=size,
        augmentation=augmentation,
        **{"batch_size": len(examples), "seed": 0, "num_threads": 0} | settings,
    )
    return next(stream)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(vertical_flip=True),
        Augmentation(crop="pad", pad=6, flip=True, vertical_flip=True),
        Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=True),
    ],
)
def test_a_box_bounds_its_object_whatever_moves_it(augmentation):
    batch = batch_of([example([(4 + i, 8, 16 + i, 28)], [0]) for i in range(12)], augmentation)
    for image, boxes in zip(batch["image"], batch["boxes"], strict=True):
        rows, columns = np.nonzero(image[..., 0] > 127)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(boxes[0] * SIDE, found, atol=1.6)
        assert (boxes[1:] == 0).all()


def test_an_oblong_image_keeps_its_proportions():
    batch = batch_of([example([(8, 4, 24, 12)], [0], height=16, width=32)])
    np.testing.assert_allclose(batch["boxes"][0, 0], [0.25, 0.125, 0.75, 0.375])
    assert (batch["image"][0, 16:] == 0).all()


def test_the_label_s_objects_alone_count_and_the_largest_comes_first():
    boxes = [(0, 0, 4, 4), (10, 10, 20, 20), (0, 0, 32, 32)]
    found = batch_of([example(boxes, [0, 0, 1])])["boxes"][0]
    np.testing.assert_allclose(found[:2] * SIDE, [boxes[1], boxes[0]])
    assert (found[2:] == 0).all()


def test_images_without_objects_and_boxes_without_area_have_no_box():
    for boxes, labels in (([], []), ([(5, 5, 5, 9)], [0])):
        assert (batch_of([example(boxes, labels)])["boxes"] == 0).all()


def test_more_boxes_than_fit_keep_the_largest():
    boxes = [(0, 0, i + 1, i + 1) for i in range(12)]
    found = batch_of([example(boxes, [0] * 12)])["boxes"][0]
    np.testing.assert_allclose(found[:, 2] * SIDE, np.arange(12, 4, -1))


def test_evaluation_sees_every_example_once():
    examples = [example([(2, 2, 10, 10)], [0]) for _ in range(3)]
    batches = localization.evaluation_batches(
        dataset_of(examples), preprocessing=Preprocessing(16), batch_size=2, num_threads=0
    )
    weights, boxes = zip(*((batch["weight"], batch["boxes"]) for batch in batches), strict=True)
    assert [list(weight) for weight in weights] == [[1, 1], [1, 0]]
    np.testing.assert_allclose(boxes[1][0, 0] * SIDE, [2, 2, 10, 10])
    assert (boxes[1][1] == 0).all()
