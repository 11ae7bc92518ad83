"""The flags that experiments which explain a network's answers share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Float, Int

from cnn_jax import errors
from cnn_jax.errors import UsageError
from cnn_jax.visualize.batching import gradient_of_sum, largest_batch
from experiments.flags import memory as memory_flags
from experiments.flags.subject import Subject

_TARGET = flags.DEFINE_string(
    "target",
    None,
    "Class that is explained, a name or a number; by default each image's likeliest.",
    module_name="Map",
)


def targets(subject: Subject, logits: Float[np.ndarray, "n classes"]) -> Int[np.ndarray, " n"]:
    """Return each image's class to explain.

    Raises:
      UsageError: no class of that name or number.
    """
    wanted = _TARGET.value
    if wanted is None:
        return np.asarray(logits).argmax(axis=1)
    if wanted in subject.class_names:
        number = subject.class_names.index(wanted)
    elif wanted.isdigit() and int(wanted) < len(subject.class_names):
        number = int(wanted)
    else:
        raise errors.unknown("class", wanted, subject.class_names)
    return np.full(len(logits), number)


def batch_size(f: Callable, pixels: Float[np.ndarray, "n h w c"]) -> int:
    """Return how many images f's gradient may take at once.

    Raises:
      UsageError: the memory limit is too small for one.
    """
    return largest_batch(gradient_of_sum(f), pixels, memory_limit=memory_flags.limit())


def answers(
    subject: Subject, logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, " n"]
) -> list[str]:
    """Return a title an image: its name, and how probable its target is."""
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    return [
        f"{name}\n{subject.class_names[target]}: {p[target]:.0%}"
        for name, target, p in zip(subject.names, targets, probabilities, strict=True)
    ]


def require(condition: bool, message: str) -> None:
    """Raise UsageError(message) unless the condition holds."""
    if not condition:
        raise UsageError(message)
