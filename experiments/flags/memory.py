"""The flag that says how much memory a network's values may take."""

from collections.abc import Callable

import numpy as np
from absl import flags
from jaxtyping import Float

from cnn_jax.visualize.batching import gradient_of_sum, largest_batch


def define() -> None:
    """Define the flag."""
    flags.DEFINE_float(
        "memory_limit",
        4.0,
        "Memory in GiB that the network's values may take, by which the batch size is chosen.",
        lower_bound=0,
        module_name="Computation",
    )


def limit() -> float:
    """Return the memory limit in bytes."""
    return flags.FLAGS.memory_limit * 2**30


def batch_size(f: Callable, pixels: Float[np.ndarray, "n h w c"]) -> int:
    """Return how many images f's gradient may take at once.

    Raises:
      UsageError: the memory limit is too small for one.
    """
    return largest_batch(gradient_of_sum(f), pixels, memory_limit=limit())
