"""JPEG files of the size, and about the weight, of ImageNet's: 500 x 375 pixels, 110 kB."""

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 500, 375
QUALITY, CONTRAST = 95, 0.2


def write_images(folder: Path, count: int = 64, seed: int = 0) -> None:
    """Write count images, in turn to the sub-folders a and b, the classes."""
    for label in "ab":
        (folder / label).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        Image.fromarray(_image(rng)).save(path, quality=QUALITY)


def _image(rng: np.random.Generator) -> np.ndarray:
    """Noise with as much contrast at every scale, as natural images have (Field 1987)."""
    image = np.full((HEIGHT, WIDTH, 3), 128.0)
    for cell in (256, 128, 64, 32, 16, 8, 4, 2):
        shape = (HEIGHT // cell + 2, WIDTH // cell + 2, 3)
        noise = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        smooth = noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image += CONTRAST * (np.asarray(smooth, float) - 128)
    return np.clip(image, 0, 255).astype(np.uint8)
