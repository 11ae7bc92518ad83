"""One geometry for an image and all that lies in it: its pixels, masks and boxes.

A Placement says which part of an image is shown, how large, and where on a square canvas. The same
one moves the image, its masks and its boxes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from cnn_jax.data.augmentation import Augmentation, resized_crop_box

_MIRRORS = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)


class Placement(NamedTuple):
    """Where an image's pixels come to lie; lengths in pixels, x before y.

    part: (left, top, right, bottom) of what is shown of the image.
    size: that the part is scaled to.
    corner: of the scaled part on the canvas, its upper left one.
    canvas: the side of the square.
    mirrored: whether the part's left and right change places, and its top and bottom.
    """

    part: tuple[int, int, int, int]
    size: tuple[int, int]
    corner: tuple[int, int]
    canvas: int
    mirrored: tuple[bool, bool] = (False, False)


def fitted(size: tuple[int, int], canvas: int) -> Placement:
    """Return that of a whole image of this size, whose longer side becomes the canvas's.

    It lies in the upper left corner.
    """
    scaled = tuple(max(1, round(side * canvas / max(size))) for side in size)
    return Placement((0, 0, *size), scaled, (0, 0), canvas)


def mirrored(placement: Placement, axis: int) -> Placement:
    """Return that of the mirrored canvas; axis 0 exchanges left and right, 1 top and bottom."""
    corner, flags = list(placement.corner), list(placement.mirrored)
    corner[axis] = placement.canvas - placement.size[axis] - corner[axis]
    flags[axis] = not flags[axis]
    return placement._replace(corner=tuple(corner), mirrored=tuple(flags))


def random_placement(
    size: tuple[int, int], rng: np.random.Generator, options: Augmentation, canvas: int
) -> Placement:
    """Return a random placement of an image of this size.

    options.crop: "none" fits the whole; "pad" then moves it by up to options.pad pixels along each
    axis; "resized" takes a part of random area and shape (options.crop_scale, crop_ratio), which
    fills the canvas. options.flip and vertical_flip mirror half of the canvases each.
    """
    if options.crop == "resized":
        part = resized_crop_box(*size, rng, options.crop_scale, options.crop_ratio)
        placement = Placement(part, (canvas, canvas), (0, 0), canvas)
    else:
        placement = fitted(size, canvas)
    if options.crop == "pad":
        x, y = map(int, rng.integers(-options.pad, options.pad + 1, 2))
        placement = placement._replace(corner=(-x, -y))
    for axis, wanted in enumerate((options.flip, options.vertical_flip)):
        if wanted and rng.random() < 0.5:
            placement = mirrored(placement, axis)
    return placement


def scaled(
    image: Image.Image,
    placement: Placement,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """Return the part of an image that a placement shows, scaled and mirrored, without the rest."""
    if placement.part != (0, 0, *image.size):
        image = image.crop(placement.part)
    if placement.size != image.size:
        image = image.resize(placement.size, resample)
    for mirror, wanted in zip(_MIRRORS, placement.mirrored, strict=True):
        if wanted:
            image = image.transpose(mirror)
    return image


def fit(image: Image.Image, canvas: int) -> Image.Image:
    """Return the image scaled until its longer side is the canvas's."""
    return scaled(image, fitted(image.size, canvas))


def placed(
    image: Image.Image,
    placement: Placement,
    resample: Image.Resampling,
    fill: Sequence[int],
) -> Image.Image:
    """Return the canvas with the image on it.

    Args:
      resample: of masks NEAREST, which mixes no classes.
      fill: the colour beside the image, a number a channel.
    """
    image = scaled(image, placement, resample)
    side = placement.canvas
    if placement.corner == (0, 0) and image.size == (side, side):
        return image
    whole = Image.new(image.mode, (side, side), tuple(fill) if len(fill) > 1 else fill[0])
    whole.paste(image, placement.corner)
    return whole


def placed_boxes(
    boxes: Float[np.ndarray, "k 4"], size: tuple[int, int], placement: Placement
) -> Float[np.ndarray, "k 4"]:
    """Return boxes (x1, y1, x2, y2) in pixels of the canvas, beyond whose edges they may reach.

    Args:
      boxes: in shares of an image of this size.
    """
    left, top, right, bottom = placement.part
    scale = np.array(
        [size[0] * placement.size[0] / (right - left), size[1] * placement.size[1] / (bottom - top)]
    )
    start = np.array([left / size[0], top / size[1]])
    found = (boxes - np.tile(start, 2)) * np.tile(scale, 2)
    for axis, wanted in enumerate(placement.mirrored):
        if wanted:
            found = mirrored_boxes(found, placement.size[axis], axis)
    return found + np.tile(placement.corner, 2)


def mirrored_boxes(
    boxes: Float[np.ndarray, "k 4"], length: int, axis: int = 0
) -> Float[np.ndarray, "k 4"]:
    """Return boxes (x1, y1, x2, y2) after x, or with axis 1 y, became length - x."""
    first, second = boxes[:, axis], boxes[:, axis + 2]
    moved = boxes.copy()
    moved[:, axis], moved[:, axis + 2] = length - second, length - first
    return moved
