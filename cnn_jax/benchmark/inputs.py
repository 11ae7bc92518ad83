"""The batches that a task is fed with, as NumPy arrays on the host.

They may be read of JPEG files of the size, and about the weight, of ImageNet's: 500 x 375 pixels,
110 kB.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cnn_jax.benchmark.spec import Spec
from cnn_jax.data import datasets
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.pipeline import Batch, train_batches
from cnn_jax.errors import UsageError
from cnn_jax.runtime.cores import cores

# As ImageNet is trained on: a random-resized crop, mirrored half of the time.
TRAINING = Augmentation(crop="resized", flip=True)
EVALUATION = Augmentation()

# Of each channel, in 0..1 units.
MEAN, STD = 0.45, 0.225


def synthetic_batch(spec: Spec, channels: int, num_classes: int) -> Batch:
    """Return {"image": uint8 [b, h, w, c], "label": int32 [b]} of random values."""
    rng = np.random.default_rng(0)
    shape = (spec.batch_size, spec.image_size, spec.image_size, channels)
    return {
        "image": rng.integers(0, 256, shape, np.uint8),
        "label": rng.integers(0, num_classes, spec.batch_size, np.int32),
    }


def decoded_batches(spec: Spec, channels: int, augmentation: Augmentation) -> Iterator[Batch]:
    """Yield batches of the same form from the JPEG files, as training does.

    Raises:
      UsageError: the model does not take colour images.
    """
    if channels != 3:
        raise UsageError(
            f"decoded images have 3 channels, {spec.model} takes {channels}; "
            "give --input=synthetic or another model"
        )
    return train_batches(
        datasets.load(f"folder:{spec.images}", "train"),
        batch_size=spec.batch_size,
        image_size=spec.image_size,
        augmentation=augmentation,
        seed=0,
        num_threads=spec.num_threads,
    )


def batches(
    spec: Spec, channels: int, num_classes: int, augmentation: Augmentation
) -> Iterator[Batch]:
    """Yield what spec.input names; the synthetic batch is one object, again and again."""
    if spec.input == "decoded":
        return decoded_batches(spec, channels, augmentation)
    return itertools.repeat(synthetic_batch(spec, channels, num_classes))


def lead(spec: Spec) -> int:
    """Return how many batches the pipeline may have ready when a turn begins, and one more."""
    return 1 if spec.input == "synthetic" else workers(spec) + 2


def workers(spec: Spec) -> int:
    """Return how many threads, of PyTorch's side processes, decode images."""
    return min(cores(), 16) if spec.num_threads is None else spec.num_threads


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
