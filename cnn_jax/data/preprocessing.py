"""What an image goes through before evaluation: resize, centre crop or ten crops."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cnn_jax.errors import UsageError, unknown

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


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
      image: mode "L" or "RGB", any size.

    Returns:
      The crop, image_size by image_size, in the same mode.
    """
    resized = resize_shorter_side(
        image, options.resize or options.image_size, RESAMPLING[options.interpolation]
    )
    return center_crop(resized, options.image_size)


def ten_crop(image: Image.Image, options: Preprocessing) -> UInt8[np.ndarray, "10 h w c"]:
    """Resizes the shorter side, then takes ten crops, as Krizhevsky et al. (2012) did.

    The order is torchvision's: top left, top right, bottom left, bottom right and centre of the
    image, then the same five places of its mirror image.
    """
    resized = resize_shorter_side(
        image, options.resize or options.image_size, RESAMPLING[options.interpolation]
    )
    mirrored = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    crops = _five_crop(resized, options.image_size) + _five_crop(mirrored, options.image_size)
    return np.stack([to_array(crop) for crop in crops])


def resize_shorter_side(
    image: Image.Image, size: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """Scales the image so that its shorter side is size pixels; the longer one is rounded down."""
    width, height = image.size
    if min(width, height) == size:
        return image
    if width <= height:
        return image.resize((size, size * height // width), resample)
    return image.resize((size * width // height, size), resample)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of size pixels; half pixels round to even, as in torchvision."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def to_array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image of mode "L" (c = 1) or "RGB" (c = 3)."""
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _five_crop(image: Image.Image, size: int) -> list[Image.Image]:
    right, bottom = image.width - size, image.height - size
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    crops = [image.crop((x, y, x + size, y + size)) for x, y in corners]
    return [*crops, center_crop(image, size)]
