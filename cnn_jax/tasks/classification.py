"""Classification: the loss, and the sums that its metrics are made of."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(
    logits: Float[Array, "n classes"],
    label: Int[Array, " n"],
    *,
    mixed_label: Int[Array, " n"] | None = None,
    mix: Float[Array, " n"] | None = None,
    smoothing: float = 0.0,
    class_weights: Float[Array, " classes"] | None = None,
) -> Float[Array, " n"]:
    """Return each example's cross-entropy in nats, computed in float32 or better.

    The target is mix * onehot(label) + (1 - mix) * onehot(mixed_label), of which `smoothing` is
    spread evenly over all classes (Szegedy et al. 2016, section 7). With class weights, each class
    counts by its own, as in torch.nn.CrossEntropyLoss(weight, reduction="none"). A label outside
    the classes makes it NaN.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_probs = jax.nn.log_softmax(logits)
    if class_weights is not None:
        log_probs = log_probs * jnp.asarray(class_weights, log_probs.dtype)

    def of_class(label: Array) -> Array:
        chosen = jnp.take_along_axis(log_probs, label[:, None], axis=-1)[:, 0]
        return jnp.where(label >= 0, chosen, jnp.nan)  # which -1 would take from the end

    chosen = of_class(label)
    if mix is not None:
        chosen = mix * chosen + (1 - mix) * of_class(mixed_label)
    return -(1 - smoothing) * chosen - smoothing * log_probs.mean(axis=-1)


def target_weights(
    label: Int[Array, " n"],
    class_weights: Float[Array, " classes"],
    *,
    mixed_label: Int[Array, " n"] | None = None,
    mix: Float[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """Return each example's own weight: that of its classes, in the shares they have in it.

    The weighted mean of the cross-entropies is their sum by the sum of these.
    """
    own = jnp.take(class_weights, label, mode="fill")
    if mix is None:
        return own
    return mix * own + (1 - mix) * jnp.take(class_weights, mixed_label, mode="fill")


def log_odds_against(
    logits: Float[Array, "*n classes"], label: Int[Array, "*n"]
) -> Float[Array, "*n"]:
    """Return log((1 - p) / p) of the probability p of each label, in float32 or better.

    The cross-entropy is its softplus, so both have the same order and their gradients the same
    direction. Where large logits make p one, the cross-entropy is zero and its gradient vanishes;
    this one is the label's distance to the other logits, whatever their scale. A label outside the
    classes makes it NaN.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    own = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=-1)
    odds = others - jnp.where(own, logits, 0).sum(axis=-1)
    return jnp.where(own.any(axis=-1), odds, jnp.nan)


def in_top(logits: Float[Array, "n classes"], label: Int[Array, " n"], k: int) -> Bool[Array, " n"]:
    """Return whether the label is among the k highest logits; of equal ones, the first counts.

    An example whose logits hold a NaN is wrong.
    """
    own = jnp.take_along_axis(logits, label[:, None], axis=-1)
    before = jnp.arange(logits.shape[-1]) < label[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & before), axis=-1)
    return (rank < k) & ~jnp.isnan(logits).any(axis=-1)


def metric_sums(
    logits: Float[Array, "n classes"], label: Int[Array, " n"], weight: Float[Array, " n"]
) -> dict[str, Array]:
    """Return sums over the examples of weight 1: what batches can be added up from.

    examples, loss, top1 and top5 (correct ones), confusion [true class, predicted class].
    """
    counted = (weight > 0).astype(jnp.int32)
    loss = cross_entropy(logits, label)
    classes = logits.shape[-1]
    confusion = jnp.zeros((classes, classes), jnp.int32)
    return {
        "examples": counted.sum(),
        "loss": jnp.where(counted > 0, loss, 0).sum(),
        "top1": (counted * in_top(logits, label, 1)).sum(),
        "top5": (counted * in_top(logits, label, 5)).sum(),
        "confusion": confusion.at[label, logits.argmax(axis=-1)].add(counted),
    }


def summarize(sums: Mapping[str, Array], class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the metrics of metric_sums added over a whole data set.

    examples; loss in nats; top1_error and top5_error as fractions; per_class_accuracy, None for a
    class without examples; confusion as rows of true and columns of predicted classes.
    """
    examples = int(sums["examples"])
    confusion = np.asarray(sums["confusion"])
    totals = confusion.sum(axis=1)
    return {
        "examples": examples,
        "loss": float(sums["loss"]) / examples,
        "top1_error": (examples - int(sums["top1"])) / examples,
        "top5_error": (examples - int(sums["top5"])) / examples,
        "per_class_accuracy": {
            name: int(confusion[i, i]) / int(totals[i]) if totals[i] else None
            for i, name in enumerate(class_names)
        },
        "class_names": list(class_names),
        "confusion": confusion.tolist(),
    }
