"""A data set: gratings of four orientations at random phases, in noise, computed when opened."""

import numpy as np

from cnn_jax.data.arrays import from_arrays
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError

SIDE, PERIOD = 16, 4  # pixels
CONTRAST, NOISE = 30, 60  # grey values of 255: the amplitude, and the noise's standard deviation
EXAMPLES = {"train": 1000, "test": 500}
CLASSES = ("0 degrees", "45 degrees", "90 degrees", "135 degrees")


def gratings(split: str, data_dir: str | None = None) -> Dataset:
    """Return the split "train" or "test"."""
    del data_dir  # nothing is read
    if split not in EXAMPLES:
        raise UsageError(f"gratings have no split {split!r}; take train or test")
    random = np.random.default_rng([*EXAMPLES].index(split))
    count = EXAMPLES[split]
    labels = random.integers(0, len(CLASSES), count)
    phase = random.uniform(0, 2 * np.pi, count)[:, None, None]
    angle = (np.pi / len(CLASSES) * labels)[:, None, None]
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = np.cos(2 * np.pi / PERIOD * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    pixels = 127.5 + CONTRAST * wave + NOISE * random.standard_normal(wave.shape)
    images = np.clip(np.round(pixels), 0, 255).astype(np.uint8)[..., None]
    return from_arrays(images, labels, CLASSES, mean=(0.5,), std=(0.25,))
