import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.augmentation import Augmentation, augment
from cnn_jax.data.preprocessing import (
    RESAMPLING,
    Preprocessing,
    center_crop,
    preprocess,
    resize_shorter_side,
    ten_crop,
    to_array,
    validate,
)
from cnn_jax.errors import UsageError

REFERENCE = np.load(Path(__file__).parents[1] / "references" / "torchvision_augmentation.npz")


def gradient(width, height):
    return Image.fromarray(np.arange(width * height, dtype=np.uint8).reshape(height, width))


@pytest.mark.parametrize(
    "key", [key for key in REFERENCE if key.startswith("center_crop/")], ids=lambda key: key
)
def test_single_crop_and_ten_crop_equal_torchvision(key):
    _, interpolation, resize, size, kind = key.split("/")
    image = Image.fromarray(REFERENCE[f"image/{kind}"])
    options = Preprocessing(int(size), int(resize), interpolation)
    np.testing.assert_array_equal(np.asarray(preprocess(image, options)), REFERENCE[key])
    expected = REFERENCE[key.replace("center_crop", "ten_crop")]
    np.testing.assert_array_equal(ten_crop(image, options).reshape(expected.shape), expected)


def test_ten_crop_takes_corners_then_centre_then_the_same_of_the_mirror_image():
    image = gradient(4, 4)
    crops = ten_crop(image, Preprocessing(image_size=2, resize=4))
    pixels = np.asarray(image)
    assert crops.shape == (10, 2, 2, 1)
    np.testing.assert_array_equal(crops[0, :, :, 0], pixels[:2, :2])
    np.testing.assert_array_equal(crops[1, :, :, 0], pixels[:2, 2:])
    np.testing.assert_array_equal(crops[2, :, :, 0], pixels[2:, :2])
    np.testing.assert_array_equal(crops[3, :, :, 0], pixels[2:, 2:])
    np.testing.assert_array_equal(crops[4, :, :, 0], pixels[1:3, 1:3])
    np.testing.assert_array_equal(crops[5, :, :, 0], pixels[:2, :1:-1])
    np.testing.assert_array_equal(crops[9, :, :, 0], pixels[1:3, 2:0:-1])


def test_the_shorter_side_becomes_the_given_size_and_the_longer_keeps_the_aspect():
    assert resize_shorter_side(gradient(50, 25), 10).size == (20, 10)
    assert resize_shorter_side(gradient(25, 50), 10).size == (10, 20)
    assert resize_shorter_side(gradient(3, 7), 8).size == (8, 18)


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = gradient(8, 8)
    assert preprocess(image, Preprocessing(image_size=8)) is image


def test_the_centre_of_an_odd_margin_rounds_to_even():
    pixels = np.asarray(gradient(5, 3))
    np.testing.assert_array_equal(np.asarray(center_crop(gradient(5, 3), 2)), pixels[:2, 2:4])


def test_small_images_are_enlarged():
    assert to_array(preprocess(gradient(8, 8), Preprocessing(image_size=16))).shape == (16, 16, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Preprocessing(224, resize=200), "resize 200 is smaller than the image size 224"),
        (Preprocessing(0), "image size 0 is not positive"),
        (Preprocessing(8, interpolation="bicubik"), "did you mean 'bicubic'"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        validate(options)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [32, 37])
@pytest.mark.parametrize("size", [(2000, 1), (1, 2000), (1500, 7), (33, 3000), (1700, 100)])
def test_a_long_image_gives_the_crops_of_the_whole_resized_one(size, resize, interpolation):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    options = Preprocessing(32, resize, interpolation)
    whole = resize_shorter_side(image, resize, RESAMPLING[interpolation])
    mirrored = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = []
    for each in (whole, mirrored):
        right, bottom = each.width - 32, each.height - 32
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
        expected += [each.crop((x, y, x + 32, y + 32)) for x, y in corners]
        expected.append(center_crop(each, 32))
    expected = np.stack([np.asarray(crop, np.int16) for crop in expected])
    found = np.concatenate([ten_crop(image, options), [to_array(preprocess(image, options))]])
    difference = np.abs(found - np.concatenate([expected, expected[4:5]]))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 5e-3


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_a_thin_image_takes_little_memory(size):
    stripe = Image.new("RGB", size, (10, 20, 30))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crops = ten_crop(stripe, Preprocessing(224))
    preprocess(stripe, Preprocessing(224))
    for crop in ("none", "pad", "resized"):
        options = Augmentation(crop=crop, crop_ratio=(0.1, 0.3))
        rng, fill = np.random.default_rng(0), np.zeros(3, np.uint8)
        augment(stripe, rng, options, image_size=224, fill=fill)
    assert (crops == [10, 20, 30]).all()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**17  # KiB
