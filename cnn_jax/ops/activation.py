"""Rectified linear units whose backward rule can be exchanged."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# What reaches the input x when g reaches the output.
RELU_RULES: dict[str, Callable[[Array, Array], Array]] = {
    "gradient": lambda x, g: jnp.where(x > 0, g, 0),
    # Springenberg et al. 2015, figure 1: both signs must be positive
    "guided": lambda x, g: jnp.where((x > 0) & (g > 0), g, 0),
    # Zeiler & Fergus 2014, section 2.1: the signal is rectified, the input is forgotten
    "deconvnet": lambda x, g: jnp.maximum(g, 0),
}


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _relu_by_rule(x, rule):
    return jnp.maximum(x, 0)


def _relu_forward(x, rule):
    return jnp.maximum(x, 0), x


def _relu_backward(rule, x, g):
    return (rule(x, g),)


_relu_by_rule.defvjp(_relu_forward, _relu_backward)


def relu(
    x: Float[Array, "..."], rule: str | Callable[[Array, Array], Array] = "gradient"
) -> Float[Array, "..."]:
    """Return max(x, 0), differentiated by the rule named in RELU_RULES or given as f(x, g).

    The plain rule is jax.nn.relu's own and can be differentiated again and in forward mode; the
    others change what jax.grad and jax.vjp give, never the value.
    """
    if rule == "gradient":
        return jax.nn.relu(x)
    return _relu_by_rule(x, RELU_RULES[rule] if isinstance(rule, str) else rule)
