import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import augmentation
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.errors import UsageError

REFERENCE = np.load(Path(__file__).parents[1] / "references" / "torchvision_augmentation.npz")


def keys(prefix):
    return [key for key in REFERENCE if key.startswith(prefix + "/")]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Draws:
    """A generator that hands out given numbers, so that what a draw leads to can be computed."""

    def __init__(self, **draws):
        self.draws = {name: iter(values) for name, values in draws.items()}

    def __getattr__(self, name):
        return lambda *_, **__: next(self.draws[name])


def with_opacity():
    """The colour image, transparent to the left."""
    image = Image.fromarray(REFERENCE["image/rgb"])
    ramp = np.broadcast_to(np.linspace(0, 255, image.width).astype(np.uint8), image.size[::-1])
    image.putalpha(Image.fromarray(ramp.copy()))
    return image


# Policies.


@pytest.mark.parametrize("name", augmentation.OPERATIONS)
def test_operations_equal_torchvision_bit_for_bit(name):
    for key in keys(f"operation/{name}"):
        *_, strength, interpolation, kind = key.split("/")
        image = Image.fromarray(REFERENCE[f"image/{kind}"])
        resample = Image.Resampling[interpolation.upper()]
        result = augmentation.apply_operation(image, name, float(strength), resample)
        np.testing.assert_array_equal(np.asarray(result), REFERENCE[key], err_msg=key)


@pytest.mark.parametrize("name", augmentation.OPERATIONS)
def test_strengths_of_all_magnitudes_equal_torchvision(name):
    magnitudes = range(augmentation.NUM_MAGNITUDES)
    randaugment = [augmentation.randaugment_strength(name, m, (500, 375)) for m in magnitudes]
    trivialaugment = [augmentation.trivialaugment_strength(name, m) for m in magnitudes]
    for policy, strengths in (("randaugment", randaugment), ("trivialaugment", trivialaugment)):
        expected = REFERENCE[f"strength/{policy}/{name}"]
        np.testing.assert_allclose(strengths, expected, rtol=2e-7, atol=1e-7)
        if name == "posterize":
            np.testing.assert_array_equal(strengths, expected)


def test_half_of_trivialaugments_translation_is_16_pixels():
    # torchvision's single precision makes it 15.999999, cut to 15: the only integer that differs.
    magnitudes = range(augmentation.NUM_MAGNITUDES)
    pixels = [int(augmentation.trivialaugment_strength("translate_x", m)) for m in magnitudes]
    torchvisions = REFERENCE["strength/trivialaugment/translate_x"].astype(int)
    assert (pixels[15], torchvisions[15]) == (16, 15)
    np.testing.assert_array_equal(np.delete(pixels, 15), np.delete(torchvisions, 15))


def test_the_policies_choose_among_torchvisions_operations_in_its_order():
    assert [key.split("/")[-1] for key in keys("strength/randaugment")] == list(
        augmentation.OPERATIONS
    )


def test_signs_are_drawn_for_the_operations_that_have_one():
    for name in augmentation.OPERATIONS:
        drawn = augmentation._with_random_sign(name, 1.0, Draws(random=[0.7]))
        assert drawn == (-1.0 if REFERENCE[f"signed/{name}"] else 1.0)


def test_randaugment_applies_num_ops_operations_at_its_magnitude():
    image = Image.fromarray(REFERENCE["image/rgb"])
    names = list(augmentation.OPERATIONS)
    draws = Draws(integers=[names.index("posterize"), names.index("brightness")], random=[0.2])
    expected = augmentation.apply_operation(image, "posterize", 7)
    expected = augmentation.apply_operation(expected, "brightness", 0.9 * 9 / 30)
    result = augmentation.randaugment(image, draws, num_ops=2, magnitude=9)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


def test_trivialaugment_applies_one_operation_at_a_drawn_magnitude():
    image = Image.fromarray(REFERENCE["image/rgb"])
    draws = Draws(integers=[list(augmentation.OPERATIONS).index("rotate"), 10], random=[0.9])
    expected = augmentation.apply_operation(image, "rotate", -45.0)
    result = augmentation.trivialaugment(image, draws)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


# Colour.


@pytest.mark.parametrize("key", keys("hue"))
def test_hue_equals_torchvision_bit_for_bit(key):
    _, turn, kind = key.split("/")
    image = Image.fromarray(REFERENCE[f"image/{kind}"])
    result = augmentation.shift_hue(image, float(turn))
    np.testing.assert_array_equal(np.asarray(result), REFERENCE[key])


def test_color_jitter_applies_its_factors_in_the_drawn_order():
    image = Image.fromarray(REFERENCE["image/rgb"])
    draws = Draws(permutation=[[2, 3, 0, 1]], uniform=[0.6, 0.2, 1.3, 0.8])
    expected = augmentation.apply_operation(image, "color", 0.6 - 1)
    expected = augmentation.shift_hue(expected, 0.2)
    expected = augmentation.apply_operation(expected, "brightness", 1.3 - 1)
    expected = augmentation.apply_operation(expected, "contrast", 0.8 - 1)
    result = augmentation.color_jitter(image, draws, 0.4, 0.4, 0.4, 0.2)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


def test_color_jitter_draws_within_its_strengths(rng):
    black_to_white = Image.fromarray(np.full((1, 1), 100, np.uint8))
    values = [
        int(np.asarray(augmentation.color_jitter(black_to_white, rng, brightness=0.5))[0, 0])
        for _ in range(500)
    ]
    assert 50 <= min(values) < 55
    assert 145 < max(values) <= 150


# Crops and flips.


def test_padding_with_zeros_shifts_the_image_and_fills_with_black(rng):
    image = np.arange(1, 10, dtype=np.uint8).reshape(3, 3)
    padded = np.pad(image, 2)
    windows = {padded[y : y + 3, x : x + 3].tobytes() for y in range(5) for x in range(5)}
    crops = {
        np.asarray(augmentation.pad_and_crop(Image.fromarray(image), rng, 2)).tobytes()
        for _ in range(500)
    }
    assert crops == windows


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3)])
def test_reflecting_padding_mirrors_without_repeating_the_edge(rng, shape):
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)][: len(shape)], mode="reflect")
    windows = {padded[y : y + 4, x : x + 4].tobytes() for y in range(5) for x in range(5)}
    crops = {
        np.asarray(augmentation.pad_and_crop(Image.fromarray(image), rng, 2, "reflect")).tobytes()
        for _ in range(500)
    }
    assert crops == windows


def test_half_of_the_images_are_flipped(rng):
    image = Image.fromarray(np.array([[1, 2, 3]], np.uint8))
    flipped = sum(augmentation.random_flip(image, rng) is not image for _ in range(1000))
    assert 450 < flipped < 550
    mirrored = augmentation.random_flip(image, Draws(random=[0.1]))
    np.testing.assert_array_equal(np.asarray(mirrored), [[3, 2, 1]])


def test_a_vertical_flip_turns_half_of_the_images_upside_down(rng):
    image = Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8))
    options = augmentation.Augmentation(vertical_flip=True)
    seen = [
        augmentation.augment(image, rng, options, image_size=2, fill=np.zeros(1)).ravel().tolist()
        for _ in range(1000)
    ]
    assert 450 < seen.count([3, 4, 1, 2]) < 550
    assert set(map(tuple, seen)) == {(1, 2, 3, 4), (3, 4, 1, 2)}


def test_a_random_resized_crop_has_the_drawn_area_and_aspect():
    # A quarter of 80 x 60 pixels at 4:3 is 40 x 30.
    draws = Draws(uniform=[0.25, math.log(4 / 3)], integers=[7, 9])
    box = augmentation.resized_crop_box(80, 60, draws, (0.08, 1), (3 / 4, 4 / 3))
    assert box == (9, 7, 49, 37)


def test_random_resized_crops_stay_in_their_ranges_and_reach_all_of_the_image(rng):
    boxes = np.array(
        [
            augmentation.resized_crop_box(500, 375, rng, (0.08, 1), (3 / 4, 4 / 3))
            for _ in range(2000)
        ]
    )
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 500, 375)
    area, ratio = width * height / (500 * 375), width / height
    assert 0.079 < area.min() < 0.09
    assert 0.95 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.35


@pytest.mark.parametrize(
    ("size", "box"),
    [((100, 10), (43, 0, 56, 10)), ((9, 100), (0, 44, 9, 56)), ((10, 10), (0, 0, 10, 10))],
)
def test_when_ten_crops_do_not_fit_the_largest_central_one_is_taken(size, box):
    # Ten draws of twice the area: none fits.
    draws = Draws(uniform=[2.0, 0.0] * 10)
    assert augmentation.resized_crop_box(*size, draws, (0.08, 1), (3 / 4, 4 / 3)) == box


# Erasing.


def test_erasing_paints_the_drawn_rectangle():
    image = np.zeros((8, 10, 3), np.uint8)
    # 15 % of 80 pixels, three times as high as wide: 6 x 2.
    draws = Draws(random=[0.1], uniform=[0.15, math.log(3)], integers=[1, 4])
    erased = augmentation.random_erasing(image, draws, np.array([1, 2, 3], np.uint8))
    expected = image.copy()
    expected[1:7, 4:6] = (1, 2, 3)
    np.testing.assert_array_equal(erased, expected)
    assert not image.any()


def test_erasing_takes_its_share_of_images_and_area(rng):
    image, fill = np.zeros((64, 64, 1), np.uint8), np.array([1], np.uint8)
    shares = np.array(
        [
            augmentation.random_erasing(image, rng, fill, probability=0.25).mean()
            for _ in range(2000)
        ]
    )
    erased = shares[shares > 0]
    assert 0.22 < len(erased) / 2000 < 0.28
    assert 0.015 < erased.min() < 0.03
    assert 0.3 < erased.max() < 0.34


# Mixing.


def test_mixup_blends_each_image_with_the_one_before_it():
    images = np.array([[0], [100], [200]], np.uint8).reshape(3, 1, 1, 1)
    mixed, share = augmentation.mixup(images, Draws(beta=[0.75]), alpha=0.2)
    assert share == 0.75
    np.testing.assert_array_equal(mixed.ravel(), [0.25 * 200, 0.75 * 100, 0.75 * 200 + 0.25 * 100])
    assert mixed.dtype == np.uint8


def test_cutmix_pastes_a_box_and_counts_what_remains():
    images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30)])
    # A quarter of the area: a box of 4 x 4, here around column 1 and row 6, cut at the borders.
    mixed, share = augmentation.cutmix(images, Draws(beta=[0.75], integers=[1, 6]), alpha=1.0)
    expected = images.copy()
    expected[:, 4:8, 0:3] = np.array([30, 10, 20])[:, None, None, None]
    np.testing.assert_array_equal(mixed, expected)
    assert share == 1 - 12 / 64


def test_each_batch_draws_mixup_or_cutmix_and_pairs_the_labels():
    images = np.zeros((4, 32, 32, 1), np.uint8)
    images[1] = 255
    batch = {"image": images, "label": np.arange(4, dtype=np.int32)}
    blended = 0
    for seed in range(200):
        options = Augmentation(mixup=1.0, cutmix=1.0)
        mixed = augmentation.mixup_and_cutmix(batch, np.random.default_rng(seed), options)
        np.testing.assert_array_equal(mixed["mixed_label"], [3, 0, 1, 2])
        assert mixed["mix"].dtype == np.float32
        assert len(set(mixed["mix"])) == 1
        # In the mean, both keep the share `mix` of the white image.
        np.testing.assert_allclose(mixed["image"][1].mean() / 255, mixed["mix"][1], atol=0.5 / 255)
        blended += 0 < mixed["image"][1, 0, 0, 0] < 255
    assert 80 < blended < 120


# Transparency.


@pytest.mark.parametrize("name", augmentation.OPERATIONS)
def test_operations_change_colours_or_move_pixels_with_their_opacity(name):
    image = with_opacity()
    strength = augmentation.trivialaugment_strength(name, 15)
    result = np.asarray(augmentation.apply_operation(image, name, strength))
    colours, opacity = image.convert("RGB"), image.getchannel("A")
    expected = augmentation.apply_operation(colours, name, strength)
    if name.startswith(("shear", "translate", "rotate")):
        opacity = augmentation.apply_operation(opacity, name, strength)
        places = np.asarray(opacity) == 255
        np.testing.assert_array_equal(result[places][:, :3], np.asarray(expected)[places])
    else:
        np.testing.assert_array_equal(result[..., :3], np.asarray(expected))
    np.testing.assert_array_equal(result[..., 3], np.asarray(opacity))


def test_colour_jitter_leaves_opacity_alone(rng):
    image = with_opacity()
    jittered = augmentation.color_jitter(image, rng, 0.4, 0.4, 0.4, 0.1)
    np.testing.assert_array_equal(jittered.getchannel("A"), image.getchannel("A"))
    alike = augmentation.color_jitter(
        image.convert("RGB"), np.random.default_rng(0), 0.4, 0.4, 0.4, 0.1
    )
    np.testing.assert_array_equal(np.asarray(jittered)[..., :3], np.asarray(alike))


# Options.


def test_the_defaults_leave_an_image_as_it_is(rng):
    image = REFERENCE["image/rgb"][:13, :13]
    result = augmentation.augment(
        Image.fromarray(image), rng, Augmentation(), image_size=13, fill=np.zeros(3, np.uint8)
    )
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
@pytest.mark.parametrize("policy", ["none", "randaugment", "trivialaugment"])
@pytest.mark.parametrize("kind", ["rgb", "grey", "rgba"])
def test_all_options_together_keep_size_and_channels(rng, crop, policy, kind):
    image = with_opacity() if kind == "rgba" else Image.fromarray(REFERENCE[f"image/{kind}"])
    channels = len(image.getbands())
    options = Augmentation(
        crop=crop, flip=True, policy=policy, color_jitter=(0.4, 0.4, 0.4, 0.1), erasing=1.0
    )
    augmentation.validate(options)
    for _ in range(20):
        result = augmentation.augment(
            image, rng, options, image_size=16, fill=np.zeros(channels, np.uint8)
        )
        assert result.shape == (16, 16, channels)
        assert result.dtype == np.uint8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Augmentation(crop="padd"), "did you mean 'pad'"),
        (Augmentation(pad_mode="edge"), "unknown pad mode 'edge'"),
        (Augmentation(policy="randaug"), "did you mean 'randaugment'"),
        (Augmentation(interpolation="nearest"), "unknown interpolation 'nearest'"),
        (Augmentation(pad=-1), "pad=-1 is invalid; give pixels"),
        (Augmentation(crop_scale=(0.5, 1.5)), "crop_scale"),
        (Augmentation(crop_ratio=(2.0, 1.0)), "crop_ratio"),
        (Augmentation(magnitude=31), "magnitude=31 is invalid; give 0 to 30"),
        (Augmentation(num_ops=-1), "num_ops"),
        (Augmentation(color_jitter=(0, 0, 0, 0.6)), "color_jitter"),
        (Augmentation(color_jitter=(0.4,)), "color_jitter"),
        (Augmentation(erasing=1.1), "erasing=1.1 is invalid; give a probability"),
        (Augmentation(mixup=-0.1), "mixup"),
        (Augmentation(cutmix=-0.1), "cutmix"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        augmentation.validate(options)
