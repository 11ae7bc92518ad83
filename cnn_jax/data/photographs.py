"""Photographs at their own size, and pictures written as files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from cnn_jax.data import decoding, preprocessing


def read(file: str, channels: int, longest_side: int | None = None) -> Float[np.ndarray, "h w c"]:
    """Return an image file as floats in 0..1, in grey for one channel, upright.

    Args:
      longest_side: shrinks a larger image to it.

    Raises:
      UsageError: a file that cannot be read or is no image.
    """
    image = decoding.read(file, channels)
    if longest_side is not None:
        image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return preprocessing.to_array(image).astype(np.float32) / 255


def to_bytes(image: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    """Return floats in 0..1, clipped, as uint8."""
    return np.round(255 * np.clip(np.asarray(image), 0, 1)).astype(np.uint8)


def to_pillow(image: Float[np.ndarray, "h w c"]) -> Image.Image:
    """Return an image of one or three channels as Pillow's."""
    pixels = to_bytes(image)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def write_gif(
    path: Path, frames: Sequence[Float[np.ndarray, "h w c"]], frames_per_second: float = 12
) -> None:
    """Writes an animated GIF that repeats for ever."""
    first, *others = map(to_pillow, frames)
    duration = round(1000 / frames_per_second)
    first.save(path, save_all=True, append_images=others, duration=duration, loop=0)
