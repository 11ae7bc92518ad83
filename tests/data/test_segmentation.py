"""Images with masks: what moves one moves the other; batches follow from seed and step."""

import io

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import masks, segmentation
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import IMAGENET, Dataset
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.tasks.segmentation import IGNORED

NAMES = ("background", "dark", "bright")
FILL = (124, 116, 104)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="png")
    return file.getvalue()


def dataset_of(pairs, shape=(None, None, 3)):
    """A data set of (image, mask) arrays whose masks hold 0, 1, 2 and 9 (ignored)."""
    own = masks.Masks("mask", NAMES, {0: 0, 1: 1, 2: 2, 9: IGNORED})
    examples = [{"image": png(image), "mask": png(mask)} for image, mask in pairs]
    source = masks.MaskedSource(examples, own, "toy (train)")
    return Dataset("toy", "train", source, len(NAMES), NAMES, shape, *IMAGENET)


def scene(seed, height=12, width=16):
    """A random mask, and the image that shows its classes as grey levels."""
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 3, (height // 4, width // 4)), np.ones((4, 4))).astype(np.uint8)
    return np.repeat(100 * mask[..., None], 3, axis=2), mask


@pytest.fixture(scope="module")
def dataset():
    return dataset_of([scene(i) for i in range(5)])


def batches(dataset, count, augmentation=Augmentation(), **settings):  # noqa: B008
    settings = {"batch_size": 2, "image_size": 16, "seed": 1, "num_threads": 0} | settings
    stream = segmentation.train_batches(dataset, augmentation=augmentation, **settings)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(flip=True),
        Augmentation(vertical_flip=True),
        Augmentation(crop="pad", pad=5, flip=True),
        Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=True),
    ],
)
def test_a_mask_moves_with_its_image(dataset, augmentation):
    """Away from edges, which resizing blurs, the grey level tells the class."""
    inside = 0
    for batch in batches(dataset, 6, augmentation):
        grey, mask = batch["image"][..., 0].astype(int), batch["mask"]
        level = np.where(mask == IGNORED, FILL[0], 100 * mask.astype(int))
        same = np.abs(grey - level) <= 1
        inside += same.mean() / 6
        assert set(np.unique(mask)) <= {0, 1, 2, IGNORED}
    assert inside > 0.75


def test_what_lies_outside_an_image_is_ignored(dataset):
    batch = batches(dataset, 1)[0]
    assert (batch["mask"][:, 12:] == IGNORED).all()
    assert (batch["mask"][:, :12] != IGNORED).all()
    np.testing.assert_array_equal(batch["image"][0, -1, 0], FILL)


def test_batches_follow_from_seed_and_step_alone(dataset):
    augmentation = Augmentation(crop="resized", flip=True, color_jitter=(0.1, 0.1, 0.1, 0.1))
    straight = batches(dataset, 4, augmentation)
    (later,) = batches(dataset, 1, augmentation, start_step=3, num_threads=2)
    other = batches(dataset, 4, augmentation, seed=2)
    for key in ("image", "mask"):
        np.testing.assert_array_equal(straight[3][key], later[key])
    assert any((a["image"] != b["image"]).any() for a, b in zip(straight, other, strict=True))


def test_evaluation_sees_every_example_once_and_ignores_its_padding(dataset):
    seen = list(
        segmentation.evaluation_batches(
            dataset, preprocessing=Preprocessing(16), batch_size=3, num_threads=0
        )
    )
    assert [list(batch["weight"]) for batch in seen] == [[1, 1, 1], [1, 1, 0]]
    assert (seen[1]["mask"][2] == IGNORED).all()
    np.testing.assert_array_equal(seen[0]["mask"][1, :12], scene(1)[1])


def test_large_images_are_scaled_to_the_longer_side():
    image, mask = scene(0, 24, 32)
    (batch,) = batches(dataset_of([(image, mask)]), 1, batch_size=1)
    np.testing.assert_array_equal(batch["mask"][0, :12], mask[1::2, 1::2])


def test_masks_may_ignore_everything_or_hold_no_object():
    image = np.zeros((16, 16, 3), np.uint8)
    for value, expected in ((9, IGNORED), (0, 0)):
        (batch,) = batches(dataset_of([(image, np.full((16, 16), value, np.uint8))]), 1)
        assert (batch["mask"] == expected).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((8, 16), np.uint8), "example 0 .* mask of 16x8 does not fit an image of 16x12"),
        (np.full((12, 16), 7, np.uint8), "example 0 of toy .* holds 7, .* none of its 3 classes"),
        (np.eye(16, 48, dtype=np.uint8)[:12].reshape(12, 16, 3), "mask .* is no grey image"),
    ],
)
def test_a_mask_that_does_not_fit_is_named_in_one_line(mask, message):
    with pytest.raises(UsageError, match=message) as error:
        batches(dataset_of([(scene(0)[0], mask)]), 1)
    assert "\n" not in str(error.value)


def test_options_that_mean_nothing_to_masks_are_refused(dataset):
    with pytest.raises(UsageError, match="--mixup is not for masks; use --crop"):
        batches(dataset, 1, Augmentation(mixup=0.2))


def test_class_counts_are_of_the_masks_as_they_are_in_the_files():
    own = [np.array([[0, 1], [9, 1]], np.uint8), np.array([[0, 0, 0]], np.uint8)]
    dataset = dataset_of([(np.repeat(mask[..., None], 3, -1), mask) for mask in own])
    np.testing.assert_array_equal(segmentation.class_counts(dataset), [4, 2, 0])
