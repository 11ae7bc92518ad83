"""The flag that names the class whose answer is explained."""

from collections.abc import Sequence

import numpy as np
from absl import flags
from jaxtyping import Float, Int

from cnn_jax import errors

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


def class_number(text: str, class_names: Sequence[str]) -> int:
    """Return the number of the class of this name, in any case of letters, or of this number.

    Raises:
      UsageError: there is none; the message suggests near names.
    """
    if text in class_names:
        return list(class_names).index(text)
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    if text.lstrip("-").isdecimal():
        raise errors.UsageError(
            f"unknown class {text!r}; numbers go from 0 to {len(class_names) - 1}"
        )
    alike = [i for i, name in enumerate(class_names) if name.lower() == text.lower()]
    if len(alike) != 1:
        raise errors.unknown("class", text, class_names)
    return alike[0]
