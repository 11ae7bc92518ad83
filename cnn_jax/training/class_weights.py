"""What each class weighs in the loss, from what a user writes."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from cnn_jax import errors
from cnn_jax.errors import UsageError

BALANCED = "balanced"


def parse(text: str, class_names: Sequence[str]) -> Float[np.ndarray, " classes"]:
    """Return the weights of "0.5,1,2", in the classes' order, or "cat:2,dog:1"; others weigh 1.

    Raises:
      UsageError: neither, an unknown class, a weight below 0 or not finite, or none above 0.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    named = [part.rpartition(":") for part in parts if ":" in part]
    if not parts or (named and len(named) != len(parts)):
        raise UsageError(
            f"--class_weights={text} is not understood; give balanced, a number for each class, or "
            "NAME:WEIGHT,NAME:WEIGHT"
        )
    if named:
        weights = np.ones(len(class_names))
        for name, _, number in named:
            if name not in class_names:
                raise errors.unknown("class in --class_weights", name, class_names)
            weights[list(class_names).index(name)] = _number(number, text)
    else:
        weights = np.array([_number(part, text) for part in parts])
        if len(weights) != len(class_names):
            raise UsageError(
                f"--class_weights has {len(weights)} numbers for {len(class_names)} classes; give "
                "one for each, or NAME:WEIGHT"
            )
    if not weights.any():
        raise UsageError("--class_weights are all 0: nothing is learnt; give one above 0")
    return weights


def balanced(counts: Int[np.ndarray, " classes"]) -> Float[np.ndarray, " classes"]:
    """Return weights of which each class has the same sum over its examples, and their mean is 1.

    A class without examples weighs 1, which only label smoothing meets. King & Zeng 2001, "Logistic
    regression in rare events data"; scikit-learn's class_weight="balanced".
    """
    there = counts > 0
    share = counts.sum() / max(there.sum(), 1)
    return np.where(there, share / np.maximum(counts, 1), 1.0)


def _number(text: str, given: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise UsageError(f"--class_weights={given}: {text!r} is no weight; give numbers from 0 on")
    return weight
