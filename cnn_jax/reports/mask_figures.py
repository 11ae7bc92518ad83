"""Masks drawn over images."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from cnn_jax.tasks.segmentation import IGNORED


def class_colours(classes: int) -> Float[np.ndarray, "classes 3"]:
    """Return a colour for each class, in 0..1; the first, the ground, is black."""
    table = matplotlib.colormaps["tab10" if classes <= 10 else "tab20"].colors
    table = [colour for colour in table if len(set(colour)) > 1]  # without the greys
    return np.array([(0.0, 0.0, 0.0), *(table[i % len(table)] for i in range(classes - 1))])


def overlay(
    image: UInt8[np.ndarray, "h w c"], mask: Int[np.ndarray, "h w"], classes: int
) -> Float[np.ndarray, "h w 3"]:
    """Return the image in grey with each class's colour over it, and white where IGNORED."""
    grey = image.mean(axis=-1, keepdims=True) / 255
    ignored = (mask == IGNORED)[..., None]
    tint = class_colours(classes)[np.where(mask == IGNORED, 0, mask)]
    share = np.where((mask == 0)[..., None], 0.25, 0.65)  # the ground only darkens
    return np.where(ignored, 1.0, (1 - share) * grey + share * tint)


def patches(colours: Float[np.ndarray, "k 3"], names: Sequence[str]) -> list[Patch]:
    """Return what a legend shows of these classes."""
    return [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]


def indexed_png(mask: Int[np.ndarray, "h w"], classes: int) -> bytes:
    """Return a PNG whose pixels are the classes' numbers, each in its colour, as VOC's are."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(np.rint(255 * class_colours(classes)).astype(np.uint8).tobytes())
    png = io.BytesIO()
    image.save(png, "png")
    return png.getvalue()


def masks_over_images(
    images: Sequence[UInt8[np.ndarray, "h w c"]],
    true: Sequence[Int[np.ndarray, "h w"]],
    predicted: Sequence[Int[np.ndarray, "h w"]],
    class_names: Sequence[str],
    columns: int = 3,
) -> Figure:
    """Each image with its true and its predicted mask beside it, and the colours' names below."""
    columns = min(columns, len(images))
    rows, classes = -(-len(images) // columns), len(class_names)
    figure = Figure(figsize=(3.9 * columns, 1.42 * rows + 0.5), layout="constrained")
    boxes = np.atleast_1d(figure.subplots(rows, 3 * columns)).reshape(-1)
    for axes in boxes:
        axes.set_axis_off()
    for i, (image, *masks) in enumerate(zip(images, true, predicted, strict=True)):
        grey = image.shape[-1] == 1
        shown = [image[..., 0] if grey else image, *(overlay(image, m, classes) for m in masks)]
        for axes, pixels, title in zip(
            boxes[3 * i : 3 * i + 3], shown, ("image", "true", "predicted"), strict=True
        ):
            axes.imshow(pixels, cmap="gray" if grey else None, interpolation="nearest")
            if i < columns:
                axes.set_title(title, fontsize=9, pad=3)
    handles = patches(class_colours(classes), class_names)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(classes, 9), frameon=False)
    return figure
