"""One rule that fills a reference implementation and our model with the same numbers.

Keyed by the published tensor name, so that neither side ships weights. Needs numpy alone: the
scripts make_*.py import it where torch is installed, the tests where it is not.
"""

import zlib

import numpy as np

NUM_CLASSES = 10
BATCH = 2


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float64 values of a published tensor, channels first: weight [out, in, *size].

    Weights are He's, dense ones scaled by the inputs alone; norms and layer scales lie around .7,
    so that deep residual sums do not grow out of the range where sigmoids and the like react.
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return generator.uniform(0.5, 1.5, shape)
    noise = generator.standard_normal(shape)
    if name.endswith(("bias", "running_mean")):
        return 0.1 * noise
    if len(shape) > 1 and name.endswith("weight"):
        gain = 2 if len(shape) > 2 else 1
        return noise * np.sqrt(gain / np.prod(shape[1:]))
    return 0.7 + 0.1 * noise


def images(size: int, channels: int = 3) -> np.ndarray:
    """Return standard normal images [BATCH, size, size, channels], float64."""
    return np.random.default_rng(0).standard_normal((BATCH, size, size, channels))


def digest(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Return one number a running statistic, in the order of the names: its product with a vector.

    The vector is drawn from the name, so that exchanged channels or layers show.
    """
    names = sorted(name for name in tensors if name.endswith(("running_mean", "running_var")))
    drawn = [fill(name + ".projection", tensors[name].shape) for name in names]
    return np.array([np.sum(a * tensors[name]) for a, name in zip(drawn, names, strict=True)])
