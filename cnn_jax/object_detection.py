"""Asking a detector about images of any size: what is found comes in each image's own pixels.

Published detectors see images as torchvision's GeneralizedRCNNTransform makes them
(torchvision/models/detection/transform.py); those of our own runs as in their training.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num
from PIL import Image

from cnn_jax import ops
from cnn_jax.data import geometry
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import find
from cnn_jax.trained import Trained

STRIDE = 32  # a canvas has a multiple of it along each side
PASTED = 256  # masks are pasted into multiples of it, so that few programs are compiled

Size = tuple[int, int]  # height and width


class Found(NamedTuple):
    """The objects in one image, the surest first.

    boxes: (x1, y1, x2, y2) in pixels of the image as it was given.  labels: classes, from 1 on; 0
    is the background.  masks: where each object is; None without a mask head.  exact: whether no
    box that could have been among them was left out before the suppression.
    """

    boxes: Float[np.ndarray, "k 4"]
    scores: Float[np.ndarray, " k"]
    labels: Int[np.ndarray, " k"]
    masks: Bool[np.ndarray, "k h w"] | None
    exact: bool


def detector(
    network: Trained,
    *,
    shorter: int = 800,
    longer: int = 1333,
    canvases: Sequence[Size] | None = None,
    mask_threshold: float = 0.5,
) -> Callable[[Sequence[Num[np.ndarray, "_h _w 3"]]], list[Found]]:
    """Return f(images) -> what is found in each of them.

    Images are RGB, uint8 or floats in 0..1, whose dtype is computed in; each of any size. A run's
    own detector takes uint8, its canvas and size are those of the run, and the arguments about them
    are of no effect.

    Args:
      network: trained.from_weights(name, file, task="detection"), or trained.from_workdir.
      shorter, longer: the image's shorter side gets this length in pixels, unless the longer one
        would exceed its own.
      canvases: heights and widths, multiples of 32. An image lies in the smallest that it fits,
        zeros beside it, and a program is compiled for each that is used. By default five, around
        1:1, 3:4, 4:3 and the longest images. What is beside an image reaches a little into it, so
        scores near its edges depend on the canvas; (): one that just holds the images of a call,
        as torchvision has it, and a program for each new one.
      mask_threshold: the probability above which a pixel is the object's.

    Raises:
      UsageError: the network is no detector, or needs proposals; on a call, an image of another
        kind, or one that fits no canvas.
    """
    name = network.model.name
    if (
        network.model.task != "detection"
        or not find(name).function.keywords["settings"].anchor_sizes
    ):
        raise UsageError(f"{name} finds no objects by itself; take a Faster or Mask R-CNN")
    if network.config is not None:
        side = network.config.image_size
        canvases, prepare = [(side, side)], partial(_as_in_training, side=side)
    else:
        prepare = partial(_as_torchvision, shorter=shorter, longer=longer)
        canvases = _usual_canvases(shorter, longer) if canvases is None else canvases
        for canvas in canvases:
            if any(side < 1 or side % STRIDE for side in canvas):
                raise UsageError(f"a canvas of {canvas} is no multiple of {STRIDE} pixels")

    @jax.jit
    def run(variables, images, sizes):
        return network.model.apply(variables, images, sizes=sizes)

    def detect(images: Sequence[Num[np.ndarray, "_h _w 3"]]) -> list[Found]:
        images = [_checked(image, i) for i, image in enumerate(images)]
        scaled = [prepare(image, network.mean, network.std) for image in images]
        sizes = [each.shape[:2] for each in scaled]
        own = [_rounded_up(np.max(sizes, 0), STRIDE)] if sizes else []
        found = []
        for image, pixels in zip(images, scaled, strict=True):
            height, width = _smallest(canvases or own, pixels.shape[:2])
            canvas = np.zeros((1, height, width, 3), pixels.dtype)
            canvas[0, : pixels.shape[0], : pixels.shape[1]] = pixels
            seen = run(network.variables, canvas, np.array([pixels.shape[:2]]))
            seen = jax.tree.map(lambda x: np.asarray(x[0]), seen)
            found.append(_mapped_back(seen, pixels.shape[:2], image.shape[:2], mask_threshold))
        return found

    return detect


def scaled_size(height: int, width: int, shorter: int, longer: int) -> Size:
    """Return torchvision's size of an image: sides of one scale, rounded down."""
    scale = min(shorter / min(height, width), longer / max(height, width))
    return math.floor(height * scale), math.floor(width * scale)


def resize(image: Float[np.ndarray, "h w c"], height: int, width: int) -> Array:
    """Return the image at another size, as torch.nn.functional.interpolate has it.

    Bilinear between the two nearest pixels along each axis, whose centres lie at .5, repeated
    beyond the outermost; shrinking does not average.
    """
    for axis, length in ((0, height), (1, width)):
        before = image.shape[axis]
        place = np.maximum((np.arange(length) + 0.5) * (before / length) - 0.5, 0)
        low = np.minimum(place.astype(int), before - 1)
        high = np.minimum(low + 1, before - 1)
        share = np.expand_dims((place - low).astype(image.dtype), (1, 2) if axis == 0 else (0, 2))
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


def _checked(image: np.ndarray, number: int) -> np.ndarray:
    """Return the image as an array, refused unless it is RGB in one of the two usual ranges."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise UsageError(f"image {number} has shape {image.shape}; give [height, width, 3], RGB")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise UsageError(f"image {number} is {image.dtype}; give uint8, or floats in 0..1")
    if not (image.min() >= 0 and image.max() <= 1):  # NaN too
        raise UsageError(
            f"image {number} has values from {image.min():g} to {image.max():g}; give uint8, or "
            "floats in 0..1"
        )
    return image


def _as_torchvision(image, mean, std, shorter, longer) -> np.ndarray:
    """Return the image normalised and scaled."""
    size = scaled_size(*image.shape[:2], shorter, longer)
    if not min(size):
        raise UsageError(
            f"an image of {image.shape[0]}x{image.shape[1]} pixels would have a side of none when "
            f"its longer one has {longer}; crop it first"
        )
    if image.dtype == np.uint8:
        image = image.astype(np.float32) / 255
    mean, std = (np.asarray(each, image.dtype) for each in (mean, std))
    return resize((image - mean) / std, *size)


def _as_in_training(image, mean, std, side) -> np.ndarray:
    """Return the image scaled to fit its run's canvas, and normalised."""
    if image.dtype != np.uint8:
        raise UsageError("a detector of a run takes images of uint8, as its training did")
    pixels = np.asarray(geometry.fit(Image.fromarray(image), side), np.float32) / 255
    return (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def _usual_canvases(shorter: int, longer: int) -> list[Size]:
    """Return the canvases around images of 1:1, up to 4:3, and the longest; upright and not."""
    sides = [shorter, min(4 * shorter // 3, longer), longer]
    short, middle, long = _rounded_up(sides, STRIDE)
    return [(short, short), (short, middle), (middle, short), (short, long), (long, short)]


def _rounded_up(sizes: Sequence[int], multiple: int) -> Size:
    return tuple(-(-int(size) // multiple) * multiple for size in sizes)


def _smallest(canvases: Sequence[Size], size: Size) -> Size:
    """Return the canvas of the least area that holds an image of this size."""
    fitting = [each for each in canvases if each[0] >= size[0] and each[1] >= size[1]]
    if not fitting:
        raise UsageError(
            f"an image that is scaled to {size[0]}x{size[1]} pixels fits none of the canvases "
            f"{', '.join(f'{height}x{width}' for height, width in canvases)}"
        )
    return min(fitting, key=math.prod)


@partial(jax.jit, static_argnums=(2, 3))
def _paste(mask, box, height, width):
    return ops.paste_masks(mask[None], box[None], height, width)[0]


def _mapped_back(seen, scaled: Size, size: Size, threshold: float) -> Found:
    """Return what was seen in a scaled image, on the host and in pixels of the image itself."""
    there = seen.valid
    ratios = np.array([size[1] / scaled[1], size[0] / scaled[0]] * 2, seen.boxes.dtype)
    boxes, masks = seen.boxes[there] * ratios, None
    if seen.masks is not None:
        canvas = _rounded_up(size, PASTED)  # a mask's place does not depend on what is beyond it
        masks = np.zeros((len(boxes), *size), bool)
        for i, (mask, box) in enumerate(zip(seen.masks[there], boxes, strict=True)):
            masks[i] = np.asarray(_paste(mask, box, *canvas))[: size[0], : size[1]] > threshold
    return Found(boxes, seen.scores[there], seen.labels[there], masks, bool(seen.exact))
