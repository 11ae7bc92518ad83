"""What R-CNN learns from its network's features: support vector machines and box regressions.

Girshick et al. 2014, sections 2.3 and appendices B and C. Both are linear and fitted by
scikit-learn, a class at a time; applying them is a product of matrices.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

FEATURE_NORM = 20.0  # features are scaled to this mean norm, as in the released code
POSITIVE_WEIGHT = 2.0  # of the machines' positives, likewise


class Linear(NamedTuple):
    """Linear functions of a region's features, see `apply`."""

    scale: Float[Array, ""]
    weights: Float[Array, "f *values"]
    biases: Float[Array, "*values"]


def apply(function: Linear, features: Float[Array, "*n f"]) -> Float[Array, "..."]:
    """Return scale * features @ weights + biases."""
    return jnp.tensordot(function.scale * features, function.weights, 1) + function.biases


def feature_scale(features: Float[np.ndarray, "r f"]) -> float:
    """Return what takes the features' mean norm to FEATURE_NORM."""
    norms = np.sqrt(np.square(features, dtype=np.float64).sum(-1))
    return FEATURE_NORM / max(float(norms.mean()), 1e-12) if len(norms) else 1.0


def fit_machines(
    features: Float[np.ndarray, "r f"],
    overlaps: Float[np.ndarray, "r c"],
    truth: Int[np.ndarray, " r"],
    *,
    regularization: float = 1e-3,
    background: float = 0.3,
    first_negatives: int = 2000,
    rounds: int = 5,
    seed: int = 0,
) -> Linear:
    """Return a linear support vector machine for each class, by hard negative mining.

    Positives are the true boxes of a class alone, negatives the regions that overlap none of its
    objects by `background`. A machine is fitted with some negatives, then again with all that it
    got wrong or nearly so (above -1), until there are none or the rounds are over. A class without
    positives is never found.

    Args:
      overlaps: of each region with the nearest object of each class, background left out.
      truth: the class, from 0, of regions that are true boxes; -1 of the others.
      regularization: the weight C of an error.
      first_negatives: drawn by the seed.
    """
    from sklearn.svm import LinearSVC  # takes a second, so not at the top

    classes = overlaps.shape[1]
    scale = feature_scale(features)
    scaled = scale * features
    weights, biases = np.zeros((features.shape[1], classes)), np.full(classes, -np.inf)
    for label in range(classes):
        positives = scaled[truth == label]
        negatives = scaled[(overlaps[:, label] < background) & (truth != label)]
        if not len(positives) or not len(negatives):
            continue
        chosen = np.zeros(len(negatives), bool)
        order = np.random.default_rng((seed, label)).permutation(len(negatives))
        chosen[order[:first_negatives]] = True
        for _ in range(rounds):
            inputs = np.concatenate([positives, negatives[chosen]])
            machine = LinearSVC(
                C=regularization,
                loss="hinge",
                class_weight={1: POSITIVE_WEIGHT},
                intercept_scaling=10,
                random_state=seed,
                max_iter=20_000,
            ).fit(inputs, np.arange(len(inputs)) < len(positives))
            weights[:, label], biases[label] = machine.coef_[0], machine.intercept_[0]
            hard = (negatives @ weights[:, label] + biases[label] > -1) & ~chosen
            if not hard.any():
                break
            chosen |= hard
    return Linear(np.float32(scale), weights.astype(np.float32), biases.astype(np.float32))


def fit_boxes(
    features: Float[np.ndarray, "r g"],
    deltas: Float[np.ndarray, "r 4"],
    labels: Int[np.ndarray, " r"],
    classes: int,
    *,
    ridge: float = 1000.0,
) -> Linear:
    """Return a ridge regression of the box deltas for each class, 0 of a class without regions.

    Args:
      features, deltas, labels: of the regions near an object (overlap .6 in the paper), what takes
        them to it (ops.encode_boxes), and its class, from 0.
    """
    from sklearn.linear_model import Ridge

    scale = feature_scale(features)
    weights = np.zeros((features.shape[1], classes, 4), np.float32)
    biases = np.zeros((classes, 4), np.float32)
    for label in np.unique(labels):
        own = labels == label
        fitted = Ridge(alpha=ridge).fit(scale * features[own].astype(np.float64), deltas[own])
        weights[:, label], biases[label] = fitted.coef_.T, fitted.intercept_
    return Linear(np.float32(scale), weights, biases)


def nearest_objects(
    overlaps: Float[np.ndarray, "m r"], labels: Int[np.ndarray, " m"], classes: int
) -> Float[np.ndarray, "r c"]:
    """Return each region's overlap with the nearest object of each class; labels are from 0."""
    found = np.zeros((overlaps.shape[1], classes), np.float32)
    for row, label in zip(overlaps, labels, strict=True):
        found[:, label] = np.maximum(found[:, label], row)
    return found
