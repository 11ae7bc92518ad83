"""What an image goes through before evaluation: resize, centre crop or ten crops."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cnn_jax.errors import UsageError, unknown

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# An image longer than so many times its shorter side is cropped before it is resized, as 20000x1
# pixels would become 4480000x224.
LONGEST = 16


class Preprocessing(NamedTuple):
    """Options of evaluation preprocessing.

    image_size: height and width of the crop, in pixels.
    resize: length of the image's shorter side before cropping, in pixels; None: image_size.
    interpolation: "bilinear" or "bicubic", antialiased.
    """

    image_size: int
    resize: int | None = None
    interpolation: str = "bilinear"


def validate(options: Preprocessing) -> None:
    """Raises UsageError for options that cannot work together."""
    if options.interpolation not in RESAMPLING:
        raise unknown("interpolation", options.interpolation, RESAMPLING)
    if options.image_size < 1:
        raise UsageError(f"image size {options.image_size} is not positive; give pixels")
    if options.resize is not None and options.resize < options.image_size:
        raise UsageError(
            f"resize {options.resize} is smaller than the image size {options.image_size}; "
            "resize to at least the size of the crop"
        )


def preprocess(image: Image.Image, options: Preprocessing) -> Image.Image:
    """Resizes the shorter side, then crops the centre: the single-crop protocol.

    Args:
      image: mode "L", "RGB" or "RGBA", any size.

    Returns:
      The crop, image_size by image_size, in the same mode.
    """
    scaled = _scaled_size(image.size, options.resize or options.image_size)
    (crop,) = _crops(image, options, scaled, [_centre(scaled, options.image_size)])
    return crop


def ten_crop(image: Image.Image, options: Preprocessing) -> UInt8[np.ndarray, "10 h w c"]:
    """Resizes the shorter side, then takes ten crops, as Krizhevsky et al. (2012) did.

    The order is torchvision's: top left, top right, bottom left, bottom right and centre of the
    image, then the same five places of its mirror image.
    """
    scaled = _scaled_size(image.size, options.resize or options.image_size)
    right, bottom = scaled[0] - options.image_size, scaled[1] - options.image_size
    centre = _centre(scaled, options.image_size)
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), centre]
    corners += [(right - x, y) for x, y in corners]  # of the mirror image
    crops = np.stack([to_array(crop) for crop in _crops(image, options, scaled, corners)])
    crops[5:] = crops[5:, :, ::-1].copy()
    return crops


def resize_shorter_side(
    image: Image.Image, size: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """Scales the image so that its shorter side is size pixels; the longer one is rounded down."""
    scaled = _scaled_size(image.size, size)
    return image if scaled == image.size else image.resize(scaled, resample)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of size pixels; half pixels round to even, as in torchvision."""
    return _crop(image, _centre(image.size, size), size)


def to_array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image of mode "L" (c = 1), "RGB" (c = 3) or "RGBA" (c = 4)."""
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _scaled_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    width, height = size
    if min(width, height) == shorter:
        return size
    if width <= height:
        return shorter, shorter * height // width
    return shorter * width // height, shorter


def _centre(size: tuple[int, int], crop: int) -> tuple[int, int]:
    """The upper left corner of the central square."""
    return round((size[0] - crop) / 2), round((size[1] - crop) / 2)


def _crop(image: Image.Image, corner: tuple[int, int], size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    return image.crop((*corner, corner[0] + size, corner[1] + size))


def _crops(
    image: Image.Image,
    options: Preprocessing,
    scaled: tuple[int, int],
    corners: Sequence[tuple[int, int]],
) -> list[Image.Image]:
    """The squares of options.image_size at these corners of the image scaled to this size."""
    size, resample = options.image_size, RESAMPLING[options.interpolation]
    if max(scaled) <= LONGEST * min(scaled):
        whole = image if scaled == image.size else image.resize(scaled, resample)
        return [_crop(whole, corner, size) for corner in corners]
    return [_crop_of_scaled(image, scaled, corner, size, resample) for corner in corners]


def _crop_of_scaled(
    image: Image.Image,
    scaled: tuple[int, int],
    corner: tuple[int, int],
    size: int,
    resample: Image.Resampling,
) -> Image.Image:
    """A square of the scaled image, from the image's own pixels around it alone.

    It equals the crop of the whole scaled image up to Pillow's rounding of the box to float32: a
    few pixels in a thousand differ, by one level.
    """
    spans = []
    for length, to, start in zip(image.size, scaled, corner, strict=True):
        scale = length / to
        margin = math.ceil(2 * max(1, scale)) + 1  # what the wider filter, the bicubic, reaches
        first, last = start * scale, (start + size) * scale
        low, high = max(0, math.floor(first) - margin), min(length, math.ceil(last) + margin)
        spans.append((low, high, first - low, min(last - low, high - low)))
    (left, right, x0, x1), (top, bottom, y0, y1) = spans
    part = image.crop((left, top, right, bottom))
    # One axis at a time: left alone, Pillow would choose another order for a part than for the
    # whole. It begins with the rows where that makes a tall image smaller.
    if image.height > image.width > scaled[0]:
        rows = part.resize((part.width, size), resample, box=(0, y0, part.width, y1))
        return rows.resize((size, size), resample, box=(x0, 0, x1, size))
    columns = part.resize((size, part.height), resample, box=(x0, 0, x1, part.height))
    return columns.resize((size, size), resample, box=(0, y0, size, y1))
