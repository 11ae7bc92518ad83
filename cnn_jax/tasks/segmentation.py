"""Semantic segmentation: the loss, and the metrics, all of them from one confusion matrix.

Pixels labelled IGNORED, such as the borders that VOC leaves open, count in neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from cnn_jax.errors import UsageError

IGNORED = 255  # VOC's "void" label

# Zhao et al. 2017 take 0.4; torchvision's reference implementation, whose heads ours are, 0.5
AUXILIARY_WEIGHT = 0.5


def _check_sizes(logits: Array, label: Array) -> None:
    if logits.shape[:-1] != label.shape:
        raise UsageError(
            f"logits of {logits.shape[1:-1]} pixels do not fit a mask of {label.shape[1:]}; "
            "give images whose size the network keeps"
        )


def cross_entropy_sum(
    logits: Float[Array, "n h w classes"],
    label: Integer[Array, "n h w"],
    class_weights: Float[Array, " classes"] | None = None,
) -> Float[Array, ""]:
    """Return the sum of the pixels' cross-entropies (nats), each times its class's weight.

    Computed in float32 or better. Labels are 0 to classes - 1, or IGNORED; a pixel of any other
    label makes the sum NaN.
    """
    _check_sizes(logits, label)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_probs = jax.nn.log_softmax(logits)
    if class_weights is not None:
        log_probs = log_probs * jnp.asarray(class_weights, log_probs.dtype)
    # a mask, for the gradient of an index is a scatter, which takes a CPU as long as all else here
    true = label[..., None] == jnp.arange(logits.shape[-1])
    chosen = jnp.where(true, log_probs, 0).sum(axis=-1)
    chosen = jnp.where(true.any(axis=-1), chosen, jnp.nan)
    return -jnp.where(label != IGNORED, chosen, 0).sum()


def total_weight(
    label: Integer[Array, "n h w"], class_weights: Float[Array, " classes"] | None = None
) -> Array:
    """Return the sum of the weights of the pixels that count; without any, their number."""
    if class_weights is None:
        return (label != IGNORED).sum()
    of_class = label[..., None] == jnp.arange(len(class_weights))
    return of_class.sum(axis=(0, 1, 2)) @ jnp.asarray(class_weights)


def cross_entropy(
    logits: Float[Array, "n h w classes"],
    label: Integer[Array, "n h w"],
    class_weights: Float[Array, " classes"] | None = None,
    total: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Return the (weighted) mean cross-entropy (nats) of the pixels that count; 0 without any.

    Args:
      class_weights: what a pixel of each class weighs, by default 1.
      total: what the sum is divided by, by default total_weight. A part of a batch is given its
        share of the whole batch's: the mean over equal parts is then that over all pixels.
    """
    if total is None:
        total = total_weight(label, class_weights)
    entropy = cross_entropy_sum(logits, label, class_weights)
    return entropy / jnp.where(total > 0, total, 1).astype(entropy.dtype)


def dice_loss(
    logits: Float[Array, "n h w classes"],
    label: Integer[Array, "n h w"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Return 1 - twice the overlap over the sum of areas, the mean of the classes that are there.

    Areas are sums of probabilities over all counted pixels of the batch (Milletari et al. 2016,
    "V-Net", section 3, with areas not squared). Each class weighs the same, however few its pixels.

    Args:
      axis_name: a mapped axis, over whose devices areas are added up.
    """
    _check_sizes(logits, label)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    counted = (label != IGNORED)[..., None]
    true = label[..., None] == jnp.arange(logits.shape[-1])
    probability = jnp.exp(jax.nn.log_softmax(logits))  # the cross-entropy's, computed once for both
    probability = jnp.where(counted, probability, 0)
    areas = [jnp.where(true, probability, 0), probability, true.astype(logits.dtype)]
    areas = jnp.stack([each.sum(axis=(0, 1, 2)) for each in areas])
    if axis_name is not None:
        areas = jax.lax.psum(areas, axis_name)
    overlap, predicted, real = areas
    there = real > 0
    apart = jnp.where(there, 1 - 2 * overlap / jnp.where(there, predicted + real, 1), 0)
    return apart.sum() / jnp.maximum(there.sum(), 1)


def loss(
    logits: Float[Array, "n h w classes"],
    auxiliary: Sequence[Float[Array, "n h w classes"]],
    label: Integer[Array, "n h w"],
    axis_name: str | None = None,
    dice_weight: float = 0.0,
    class_weights: Float[Array, " classes"] | None = None,
    total: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Return the logits' cross-entropy, and AUXILIARY_WEIGHT times that of each other head.

    Args:
      axis_name: the mapped axis of dice_loss.
      dice_weight: that of the dice loss, which is added to each cross-entropy.
      class_weights, total: of cross_entropy.
    """

    def of(logits):
        sum_of_losses = cross_entropy(logits, label, class_weights, total)
        if dice_weight:
            sum_of_losses += dice_weight * dice_loss(logits, label, axis_name)
        return sum_of_losses

    return of(logits) + AUXILIARY_WEIGHT * sum(map(of, auxiliary))


def confusion_matrix(
    predicted: Integer[Array, "*n"], label: Integer[Array, "*n"], classes: int
) -> Integer[Array, "classes classes"]:
    """Return the counts of pixels by true class (row) and predicted class (column)."""
    counted = label != IGNORED
    at = jnp.where(counted, label, 0).astype(jnp.int32) * classes + predicted
    counts = jnp.bincount(at.ravel(), weights=counted.ravel().astype(jnp.int32), length=classes**2)
    return counts.reshape(classes, classes)


def metric_sums(
    logits: Float[Array, "n h w classes"],
    label: Integer[Array, "n h w"],
    weight: Float[Array, " n"],
) -> dict[str, Array]:
    """Return sums over the examples of weight 1: what batches can be added up from.

    examples, pixels (that count), loss, confusion [true class, predicted class].
    """
    label = jnp.where(weight[:, None, None] > 0, label, IGNORED)
    return {
        "examples": (weight > 0).sum(),
        "pixels": total_weight(label),
        "loss": cross_entropy_sum(logits, label),
        "confusion": confusion_matrix(logits.argmax(axis=-1), label, logits.shape[-1]),
    }


def error_kinds(
    predicted: Integer[np.ndarray, "h w"], label: Integer[np.ndarray, "h w"], reach: int = 1
) -> dict[str, int]:
    """Return the counts of wrong pixels by kind; class 0 is the ground.

    edge: within `reach` pixels of a true edge, diagonals included. Of the others, missed: an
    object's pixel called ground; invented: a ground pixel called an object; confused: an object's
    pixel called an object of another class.
    """
    from scipy import ndimage  # which every command would wait for

    counted = label != IGNORED
    wrong = counted & (predicted != label)
    window = 2 * reach + 1
    edge = ndimage.maximum_filter(label, window) != ndimage.minimum_filter(label, window)
    inner = wrong & ~edge
    return {
        "edge": int((wrong & edge).sum()),
        "missed": int((inner & (predicted == 0)).sum()),
        "invented": int((inner & (label == 0)).sum()),
        "confused": int((inner & (predicted != 0) & (label != 0)).sum()),
    }


def summarize(sums: Mapping[str, Array], class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the metrics of metric_sums added over a whole data set.

    examples and pixels; loss in nats a pixel; per_class_accuracy and per_class_iou, None for a
    class that is neither there nor predicted (of accuracy: that is not there); pixel_accuracy,
    mean_accuracy and mean_iou, over the classes that are not None (Long et al. 2015, section 5);
    confusion as rows of true and columns of predicted classes.

    Raises:
      UsageError: no pixel counts.
    """
    confusion = np.asarray(sums["confusion"]).astype(np.int64)
    pixels, right = int(confusion.sum()), np.diag(confusion)
    if not pixels:
        raise UsageError("all pixels of all masks are ignored; evaluate on images with classes")
    true, union = confusion.sum(axis=1), confusion.sum(axis=1) + confusion.sum(axis=0) - right

    def shares(of: np.ndarray) -> dict[str, float | None]:
        return {
            name: int(right[i]) / int(of[i]) if of[i] else None
            for i, name in enumerate(class_names)
        }

    def mean(values: Mapping[str, float | None]) -> float:
        return float(np.mean([value for value in values.values() if value is not None]))

    accuracy, iou = shares(true), shares(union)
    return {
        "examples": int(sums["examples"]),
        "pixels": pixels,
        "loss": float(sums["loss"]) / pixels,
        "pixel_accuracy": int(right.sum()) / pixels,
        "mean_accuracy": mean(accuracy),
        "mean_iou": mean(iou),
        "per_class_accuracy": accuracy,
        "per_class_iou": iou,
        "class_names": list(class_names),
        "confusion": confusion.tolist(),
    }
