"""The flag that names the class whose answer is explained."""

import numpy as np
from absl import flags
from jaxtyping import Float, Int

from cnn_jax.data.classes import class_number

from .subject import Subject


def define() -> None:
    """Define the flag."""
    flags.DEFINE_string(
        "target",
        None,
        "Class to explain, by name or number; by default the one that the network predicts "
        "for each image.",
        module_name="Map",
    )


def targets(subject: Subject, logits: Float[np.ndarray, "n classes"]) -> Int[np.ndarray, " n"]:
    """Return each image's class to explain.

    Raises:
      UsageError: no class of that name or number.
    """
    wanted = flags.FLAGS.target
    if wanted is None:
        return np.asarray(logits).argmax(axis=1)
    number = class_number(wanted, subject.class_names)
    return np.full(len(logits), number)
