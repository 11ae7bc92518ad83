"""Augmentation: pure functions of an image and a random generator.

Definitions and constants are those of torchvision's reference implementations, which published
recipes were trained with. Images are PIL images of mode "L", "RGB" or "RGBA", batches are uint8
arrays. What moves pixels moves their opacity too; what changes colours leaves it alone.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from cnn_jax.data.preprocessing import RESAMPLING, Preprocessing, preprocess, to_array
from cnn_jax.errors import UsageError, unknown


class Augmentation(NamedTuple):
    """Options of training augmentation; the defaults leave images as they are.

    crop: "none" (the evaluation's centre crop), "pad" (pad, then crop at random) or "resized"
      (random-resized crop).
    pad: border of crop="pad", in pixels.
    pad_mode: "zero" (black) or "reflect".
    crop_scale: range of the share of the image's area that crop="resized" takes.
    crop_ratio: range of the aspect ratio, width over height, that crop="resized" takes.
    interpolation: "bilinear" or "bicubic", of resizing.
    flip: mirror left and right half of the time.
    vertical_flip: mirror top and bottom half of the time.
    alternating_flip: mirror half of the images in one epoch and the other half in the next (Jordan
      2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU"); see data.pipeline.
    policy: "none", "randaugment" or "trivialaugment".
    num_ops, magnitude: operations and strength (0 to 30) of policy="randaugment".
    color_jitter: strengths of brightness, contrast, saturation (0 and more) and hue (0 to .5).
    erasing: probability of random erasing.
    mixup, cutmix: alpha of Beta(alpha, alpha), 0 for off; with both on, each batch draws one.
    """

    crop: str = "none"
    pad: int = 4
    pad_mode: str = "zero"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    flip: bool = False
    vertical_flip: bool = False
    alternating_flip: bool = False
    policy: str = "none"
    num_ops: int = 2
    magnitude: int = 9
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


def validate(options: Augmentation) -> None:
    """Raises UsageError for an option that is out of its range."""
    for kind, name, known in (
        ("crop", options.crop, ("none", "pad", "resized")),
        ("pad mode", options.pad_mode, ("zero", "reflect")),
        ("augmentation policy", options.policy, ("none", *POLICIES)),
        ("interpolation", options.interpolation, RESAMPLING),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    scale, ratio, jitter = options.crop_scale, options.crop_ratio, options.color_jitter
    for valid, option, expected in (
        (options.pad >= 0, "pad", "pixels, 0 or more"),
        (0 < scale[0] <= scale[-1] <= 1 and len(scale) == 2, "crop_scale", "a range within 0 to 1"),
        (0 < ratio[0] <= ratio[-1] and len(ratio) == 2, "crop_ratio", "a range above 0"),
        (
            not (options.flip and options.alternating_flip),
            "alternating_flip",
            "it or flip, not both",
        ),
        (options.num_ops >= 0, "num_ops", "0 or more"),
        (0 <= options.magnitude < NUM_MAGNITUDES, "magnitude", f"0 to {NUM_MAGNITUDES - 1}"),
        (
            len(jitter) == 4 and min(jitter) >= 0 and jitter[-1] <= 0.5,
            "color_jitter",
            "brightness, contrast, saturation (0 or more) and hue (0 to 0.5)",
        ),
        (0 <= options.erasing <= 1, "erasing", "a probability, 0 to 1"),
        (options.mixup >= 0, "mixup", "alpha, 0 for off"),
        (options.cutmix >= 0, "cutmix", "alpha, 0 for off"),
    ):
        if not valid:
            given = getattr(options, option)
            raise UsageError(f"augmentation option {option}={given} is invalid; give {expected}")


def augment(
    image: Image.Image,
    rng: np.random.Generator,
    options: Augmentation,
    *,
    image_size: int,
    fill: UInt8[np.ndarray, " c"],
) -> UInt8[np.ndarray, "h w c"]:
    """Everything that happens to one image: crop, flip, policy, colour jitter, erasing.

    Args:
      image: mode "L", "RGB" or "RGBA", any size.
      image_size: height and width of the result, in pixels.
      fill: the colour of erased pixels: the mean of the data set, which normalises to zero.
    """
    if options.crop == "resized":
        image = random_resized_crop(
            image,
            rng,
            image_size,
            options.crop_scale,
            options.crop_ratio,
            RESAMPLING[options.interpolation],
        )
    else:
        whole = Preprocessing(image_size=image_size, interpolation=options.interpolation)
        image = preprocess(image, whole)
        if options.crop == "pad":
            image = pad_and_crop(image, rng, options.pad, options.pad_mode)
    if options.flip:
        image = random_flip(image, rng)
    if options.vertical_flip:
        image = random_flip(image, rng, Image.Transpose.FLIP_TOP_BOTTOM)
    if options.policy == "randaugment":
        image = randaugment(image, rng, options.num_ops, options.magnitude)
    elif options.policy == "trivialaugment":
        image = trivialaugment(image, rng)
    if any(options.color_jitter):
        image = color_jitter(image, rng, *options.color_jitter)
    array = to_array(image)
    if options.erasing:
        array = random_erasing(array, rng, fill, probability=options.erasing)
    return array


# Crops and flips.


def pad_and_crop(
    image: Image.Image, rng: np.random.Generator, pad: int = 4, mode: str = "zero"
) -> Image.Image:
    """Pads every side by pad pixels and crops the original size at random (He et al. 2016).

    mode "reflect" mirrors the image at its outermost pixels, which are not repeated.
    """
    width, height = image.size
    left, top = int(rng.integers(2 * pad + 1)) - pad, int(rng.integers(2 * pad + 1)) - pad
    if mode == "reflect":
        array = np.asarray(image)
        border = [(pad, pad), (pad, pad), (0, 0)][: array.ndim]
        image = Image.fromarray(np.pad(array, border, mode="reflect"))
        left, top = left + pad, top + pad
    # PIL fills what lies outside of an image with black.
    return image.crop((left, top, left + width, top + height))


def random_flip(
    image: Image.Image,
    rng: np.random.Generator,
    mirror: Image.Transpose = Image.Transpose.FLIP_LEFT_RIGHT,
) -> Image.Image:
    """Mirrors left and right, or as given, with probability one half."""
    return image.transpose(mirror) if rng.random() < 0.5 else image


def random_resized_crop(
    image: Image.Image,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """A crop of random area and aspect ratio, resized to size by size (Szegedy et al. 2015)."""
    box = resized_crop_box(image.width, image.height, rng, scale, ratio)
    return image.crop(box).resize((size, size), resample)


def resized_crop_box(
    width: int,
    height: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """The (left, top, right, bottom) of a random-resized crop, in pixels.

    The area's share is uniform in scale, the aspect ratio log-uniform in ratio. After ten boxes
    that do not fit, the largest central box within the ratio's range.
    """
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*log_ratio))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


# Colour.


def color_jitter(
    image: Image.Image,
    rng: np.random.Generator,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Image.Image:
    """Changes brightness, contrast, saturation and hue in random order.

    The first three are scaled by a factor uniform in [max(0, 1 - strength), 1 + strength]; hue is
    turned by a share of the circle uniform in [-strength, strength]. A strength of zero is off.
    """
    strengths = (brightness, contrast, saturation)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for choice in rng.permutation(4):
        if choice == 3:
            if hue:
                image = shift_hue(image, rng.uniform(-hue, hue))
        elif strength := strengths[choice]:
            factor = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength)
            image = enhancers[choice](image).enhance(factor)
    return image


def shift_hue(image: Image.Image, turn: float) -> Image.Image:
    """Turns the hue by a share of the colour circle, in [-.5, .5]; grey images have none."""
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int32) + int(turn * 255)) % 256
    hue = Image.fromarray(turned.astype(np.uint8))
    return _with_opacity_of(image, Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


def _with_opacity_of(image: Image.Image, colours: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        colours.putalpha(image.getchannel("A"))
    return colours


# Policies: one named operation at one of 31 magnitudes.

NUM_MAGNITUDES = 31


def randaugment(
    image: Image.Image,
    rng: np.random.Generator,
    num_ops: int = 2,
    magnitude: int = 9,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """num_ops operations drawn with replacement, all at one magnitude (Cubuk et al. 2020)."""
    for _ in range(num_ops):
        name = _OPERATION_NAMES[rng.integers(len(_OPERATION_NAMES))]
        strength = randaugment_strength(name, magnitude, image.size)
        image = apply_operation(image, name, _with_random_sign(name, strength, rng), resample)
    return image


def trivialaugment(
    image: Image.Image,
    rng: np.random.Generator,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """One operation at a random magnitude of the wide space (Mueller and Hutter 2021)."""
    name = _OPERATION_NAMES[rng.integers(len(_OPERATION_NAMES))]
    strength = trivialaugment_strength(name, int(rng.integers(NUM_MAGNITUDES)))
    return apply_operation(image, name, _with_random_sign(name, strength, rng), resample)


def randaugment_strength(name: str, magnitude: int, size: tuple[int, int]) -> float:
    """RandAugment's argument of an operation at a magnitude of 0 to 30.

    size: (width, height) of the image, in pixels: translations scale with it.
    """
    strongest = {
        "shear_x": 0.3,
        "shear_y": 0.3,
        "translate_x": 150 / 331 * size[0],
        "translate_y": 150 / 331 * size[1],
        "rotate": 30.0,
        "brightness": 0.9,
        "color": 0.9,
        "contrast": 0.9,
        "sharpness": 0.9,
    }
    return _strength(name, magnitude, strongest, posterized_bits=4)


def trivialaugment_strength(name: str, magnitude: int) -> float:
    """TrivialAugment's (wide) argument of an operation at a magnitude of 0 to 30."""
    strongest = {
        "shear_x": 0.99,
        "shear_y": 0.99,
        "translate_x": 32.0,
        "translate_y": 32.0,
        "rotate": 135.0,
        "brightness": 0.99,
        "color": 0.99,
        "contrast": 0.99,
        "sharpness": 0.99,
    }
    return _strength(name, magnitude, strongest, posterized_bits=6)


def apply_operation(
    image: Image.Image,
    name: str,
    strength: float,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """One operation of the policies.

    Args:
      name: a key of OPERATIONS.
      strength: shear as a slope, translation in pixels, rotation in degrees counter-clockwise,
        enhancements as the difference of their factor from 1, bits kept by posterize, the lowest
        value inverted by solarize.
      resample: interpolation of the geometric operations; what they uncover is black.
    """
    if image.mode != "RGBA" or name in _GEOMETRIC:
        return OPERATIONS[name](image, strength, resample)
    return _with_opacity_of(image, OPERATIONS[name](image.convert("RGB"), strength, resample))


def _shear(image, matrix, resample):
    # PIL's matrix leads from the result's coordinates to the image's.
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample)


def _translate(image, x, y):
    # PIL fills what lies outside of an image with black.
    return image.crop((-x, -y, image.width - x, image.height - y))


OPERATIONS: dict[str, Callable[[Image.Image, float, Image.Resampling], Image.Image]] = {
    "identity": lambda image, _, __: image,
    "shear_x": lambda image, slope, r: _shear(image, (1, slope, 0, 0, 1, 0), r),
    "shear_y": lambda image, slope, r: _shear(image, (1, 0, 0, slope, 1, 0), r),
    "translate_x": lambda image, pixels, _: _translate(image, int(pixels), 0),
    "translate_y": lambda image, pixels, _: _translate(image, 0, int(pixels)),
    "rotate": lambda image, degrees, r: image.rotate(degrees, r),
    "brightness": lambda image, change, _: ImageEnhance.Brightness(image).enhance(1 + change),
    "color": lambda image, change, _: ImageEnhance.Color(image).enhance(1 + change),
    "contrast": lambda image, change, _: ImageEnhance.Contrast(image).enhance(1 + change),
    "sharpness": lambda image, change, _: ImageEnhance.Sharpness(image).enhance(1 + change),
    "posterize": lambda image, bits, _: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, threshold, _: ImageOps.solarize(image, threshold),
    "autocontrast": lambda image, _, __: ImageOps.autocontrast(image),
    "equalize": lambda image, _, __: ImageOps.equalize(image),
}
POLICIES = ("randaugment", "trivialaugment")

_OPERATION_NAMES = tuple(OPERATIONS)
_GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_UNSIGNED = ("identity", "posterize", "solarize", "autocontrast", "equalize")


def _strength(
    name: str, magnitude: int, strongest: dict[str, float], posterized_bits: int
) -> float:
    share = magnitude / (NUM_MAGNITUDES - 1)
    if name == "posterize":
        return 8 - round(share * posterized_bits)
    if name == "solarize":
        return 255.0 * (1 - share)
    return strongest.get(name, 0.0) * share


def _with_random_sign(name: str, strength: float, rng: np.random.Generator) -> float:
    return strength if name in _UNSIGNED or rng.random() < 0.5 else -strength


# Arrays.


def random_erasing(
    image: UInt8[np.ndarray, "h w c"],
    rng: np.random.Generator,
    fill: UInt8[np.ndarray, " c"],
    *,
    probability: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> UInt8[np.ndarray, "h w c"]:
    """Paints a random rectangle with the fill colour (Zhong et al. 2020).

    The area's share is uniform in scale, height over width log-uniform in ratio; after ten
    rectangles that do not fit, the image stays as it is.
    """
    height, width = image.shape[:2]
    if rng.random() >= probability:
        return image
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            erased = image.copy()
            erased[top : top + h, left : left + w] = fill
            return erased
    return image


def mixup_and_cutmix(
    batch: dict[str, np.ndarray], rng: np.random.Generator, options: Augmentation
) -> dict[str, np.ndarray]:
    """Mixes each image of a batch with the one before it.

    Args:
      batch: "image" uint8 [b, h, w, c] and "label" int32 [b].

    Returns:
      The batch with mixed images, "mixed_label" int32 [b], the label of the other image, and "mix"
      float32 [b], the share of "label"; the loss is mix * loss(label) + (1 - mix) *
      loss(mixed_label).
    """
    use_cutmix = options.cutmix and (not options.mixup or rng.random() < 0.5)
    if use_cutmix:
        images, share = cutmix(batch["image"], rng, options.cutmix)
    else:
        images, share = mixup(batch["image"], rng, options.mixup)
    labels = batch["label"]
    return {
        "image": images,
        "label": labels,
        "mixed_label": np.roll(labels, 1),
        "mix": np.full(len(labels), share, np.float32),
    }


def mixup(
    images: UInt8[np.ndarray, "b h w c"], rng: np.random.Generator, alpha: float
) -> tuple[UInt8[np.ndarray, "b h w c"], float]:
    """Blends each image with the one before it (Zhang et al. 2018).

    Returns:
      The blended images, rounded to integers, and the share of each image itself, one draw of
      Beta(alpha, alpha) for the whole batch.
    """
    share = np.float32(rng.beta(alpha, alpha))
    mixed = np.empty_like(images)
    # Image by image stays in the cache: several times faster than the whole batch at once.
    for i, image in enumerate(images):
        mixed[i] = np.rint(image * share + images[i - 1] * (1 - share))
    return mixed, float(share)


def cutmix(
    images: UInt8[np.ndarray, "b h w c"], rng: np.random.Generator, alpha: float
) -> tuple[UInt8[np.ndarray, "b h w c"], float]:
    """Replaces one box of each image by that of the image before it (Yun et al. 2019).

    Returns:
      The images and the share of the area that each keeps. The box takes 1 - Beta(alpha, alpha) of
      the area around a uniform centre before it is clipped to the image.
    """
    height, width = images.shape[1:3]
    half = 0.5 * math.sqrt(1 - rng.beta(alpha, alpha))
    center_x, center_y = int(rng.integers(width)), int(rng.integers(height))
    half_width, half_height = int(half * width), int(half * height)
    left, right = max(center_x - half_width, 0), min(center_x + half_width, width)
    top, bottom = max(center_y - half_height, 0), min(center_y + half_height, height)
    mixed = images.copy()
    mixed[:, top:bottom, left:right] = np.roll(images[:, top:bottom, left:right], 1, axis=0)
    return mixed, 1 - (right - left) * (bottom - top) / (width * height)
