"""Photographs at their own size, and pictures written as files."""

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from cnn_jax.data import augmentation, decoding, preprocessing
from cnn_jax.errors import UsageError


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


def find(places: Sequence[str]) -> list[str]:
    """Return the image files that these files, folders and patterns (*, ?, **) name, each once.

    Of a folder all files that Pillow may open by their endings, also deeper down, sorted, but no
    hidden ones. A file that is named may have any ending.

    Raises:
      UsageError: a place that is not there, or has no images.
    """
    found: list[str] = []
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            more = _within(path)
        elif path.exists():
            more = [path]
        else:
            matched = sorted(map(Path, glob.glob(str(path), recursive=True)))
            more = [
                file for each in matched for file in ([each] if each.is_file() else _within(each))
            ]
        if not more:
            raise UsageError(f"there are no images at {place}; give files, folders or patterns")
        found += map(str, more)
    return list(dict.fromkeys(found))


def _within(folder: Path) -> list[Path]:
    endings = {*Image.registered_extensions()} - {".pdf", ".mpg", ".mpeg"}
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in endings
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def random_crops(
    images: Sequence[Image.Image], count: int, size: int, seed: int
) -> tuple[Float[np.ndarray, "n h w c"], Int[np.ndarray, " n"]]:
    """Return crops of a quarter to all of an image, half of them mirrored, and of which each is.

    Args:
      images: which are taken in turns.
      count: of the crops.
      size: height and width of the crops in pixels.
      seed: of the places.
    """
    rng, cut = np.random.default_rng(seed), []
    for i in range(count):
        crop = augmentation.random_resized_crop(images[i % len(images)], rng, size, (0.25, 1.0))
        cut.append(preprocessing.to_array(augmentation.random_flip(crop, rng)))
    return np.stack(cut).astype(np.float32) / 255, np.arange(count) % len(images)


def crops_apart(
    images: Sequence[Image.Image], count: int, held_out: int, size: int, seed: int
) -> tuple[Float[np.ndarray, "count size size c"], Float[np.ndarray, "held_out size size c"]]:
    """Return random crops of every other image to make something of, and of the others to judge it.

    Raises:
      UsageError: fewer than two images.
    """
    if len(images) < 2:
        raise UsageError("one photograph is too few: it is made of some and judged on others")
    made_of, _ = random_crops(images[::2], count, size, seed)
    others, _ = random_crops(images[1::2], held_out, size, seed + 1)
    return made_of, others


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
