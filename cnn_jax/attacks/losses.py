"""What bounded attacks climb: functions of logits and classes, a value an example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cnn_jax.tasks.classification import cross_entropy

_TINY = 1e-12


def of_class(logits: Float[Array, "n k"], label: Int[Array, " n"]) -> Float[Array, " n"]:
    """Return each example's logit of its class."""
    return jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]


def best_other(logits: Float[Array, "n k"], label: Int[Array, " n"]) -> Float[Array, " n"]:
    """Return the highest logit of the other classes."""
    own = jax.nn.one_hot(label, logits.shape[1], dtype=bool)
    return jnp.where(own, -jnp.inf, logits).max(axis=1)


def margin(logits: Float[Array, "n k"], label: Int[Array, " n"]) -> Float[Array, " n"]:
    """Return by how much the class leads the others, negative where it does not."""
    return of_class(logits, label) - best_other(logits, label)


def away_by_cross_entropy(logits: Array, label: Array, target: Array) -> Array:
    """Return the cross-entropy of the label."""
    return cross_entropy(logits, label)


def towards_by_cross_entropy(logits: Array, label: Array, target: Array) -> Array:
    """Return minus the cross-entropy of the target."""
    return -cross_entropy(logits, target)


def away_by_dlr(logits: Array, label: Array, target: Array) -> Array:
    """Return the difference of logits ratio (Croce & Hein 2020, equation 6).

    Neither a shift nor a scale of the logits changes it, so confident networks keep a gradient.
    """
    top = jax.lax.top_k(logits, 3)[0]
    return -margin(logits, label) / (top[:, 0] - top[:, 2] + _TINY)


def towards_by_dlr(logits: Array, label: Array, target: Array) -> Array:
    """Return the targeted difference of logits ratio (Croce & Hein 2020, equation 7)."""
    top = jax.lax.top_k(logits, 4)[0]
    lead = of_class(logits, target) - of_class(logits, label)
    return lead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)
