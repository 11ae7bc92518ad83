"""Random boxes of the detection tests, the same for the references and for ours."""

import numpy as np

BASE_SIZES = (32, 64, 100)


def random_boxes(rng: np.random.Generator, count: int, side: float = 50) -> np.ndarray:
    """Return boxes [count, 4] of positive area, centred in `side` pixels, some beyond its edges."""
    centres = rng.uniform(0, side, (count, 2))
    half = rng.uniform(1, side / 3, (count, 2))
    return np.concatenate([centres - half, centres + half], -1)
