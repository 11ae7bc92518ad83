"""What bounded attacks climb: functions of logits and classes, a value an example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cnn_jax.tasks.classification import log_odds_against


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
    """Return the logarithmic odds against the label, which rise as its cross-entropy does."""
    return log_odds_against(logits, label)


def towards_by_cross_entropy(logits: Array, label: Array, target: Array) -> Array:
    """Return the logarithmic odds for the target, which rise as its cross-entropy falls."""
    return -log_odds_against(logits, target)


def away_by_dlr(logits: Array, label: Array, target: Array) -> Array:
    """Return the difference of logits ratio (Croce & Hein 2020, equation 6).

    Neither a shift nor a scale of the logits changes it, so confident networks keep a gradient.
    """
    top = jax.lax.top_k(logits, 3)[0]
    return _ratio(-margin(logits, label), top[:, 0] - top[:, 2])


def towards_by_dlr(logits: Array, label: Array, target: Array) -> Array:
    """Return the targeted difference of logits ratio (Croce & Hein 2020, equation 7)."""
    top = jax.lax.top_k(logits, 4)[0]
    lead = of_class(logits, target) - of_class(logits, label)
    return _ratio(lead, top[:, 0] - (top[:, 2] + top[:, 3]) / 2)


def _ratio(lead: Array, spread: Array) -> Array:
    """Return lead / spread, of equal logits the lead: the ratio has no scale to add a little to."""
    return lead / jnp.where(spread > 0, spread, 1)
