"""A loss: the margin between the right class and the best of the others."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def margin(logits: Float[Array, "n classes"], batch: Mapping[str, Array]) -> Float[Array, " n"]:
    """Return max(0, 1 + the largest wrong logit - the right one) of each example.

    Crammer & Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector
    machines", section 3.
    """
    right = jax.nn.one_hot(batch["label"], logits.shape[-1], dtype=bool)
    of_right = jnp.where(right, logits, 0).sum(axis=-1)
    of_wrong = jnp.where(right, -jnp.inf, logits).max(axis=-1)
    return jax.nn.relu(1 + of_wrong - of_right)
