"""Adversarial training: the images of a batch, perturbed against the network as it stands."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cnn_jax.runtime.platform_loop import repeat

_TRADES_START = 1e-3  # the scale of the noise that TRADES starts from


def perturbed(
    logits_of: Callable[[Array], Array],
    loss_of: Callable[[Array], Array],
    pixels: Float[Array, "n h w c"],
    key: Key[Array, ""],
    *,
    adversary: str,
    eps: float,
    steps: int,
) -> Float[Array, "n h w c"]:
    """Return adversarial pixels, within eps of the given ones in l-infinity and in 0..1.

    Part of a training step: it is traced, and no gradient flows back through it. Its steps do not
    depend on the scale of the logits.

    Args:
      logits_of: of pixels in 0..1, by the network as it is trained.
      loss_of: of logits, what is climbed: a sum over the batch whose gradient does not vanish where
        the network is sure, such as that of classification.log_odds_against.
      adversary: "pgd" (Madry et al. 2018), `steps` steps of 2.5 eps / steps from a random start;
        "fast" (Wong et al. 2020), one step of 1.25 eps from a random start; "trades" (Zhang et al.
        2019), as pgd but up the divergence from the prediction on the clean image.
    """
    clean = None
    if adversary == "trades":
        clean = jax.lax.stop_gradient(logits_of(pixels))
        start = pixels + _TRADES_START * jax.random.normal(key, pixels.shape, pixels.dtype)
    else:
        start = pixels + jax.random.uniform(key, pixels.shape, pixels.dtype, -eps, eps)
    steps, step_size = (1, 1.25 * eps) if adversary == "fast" else (steps, 2.5 * eps / steps)

    def objective(x):
        logits = logits_of(x)
        if adversary == "trades":
            ascent = jax.lax.stop_gradient(divergence_ascent(clean, logits))
            return (ascent * logits).sum()
        return loss_of(logits)

    def step(_, x):
        moved = x + step_size * jnp.sign(jax.grad(objective)(x))
        return jnp.clip(jnp.clip(moved, pixels - eps, pixels + eps), 0, 1)

    return jax.lax.stop_gradient(repeat(step, jnp.clip(start, 0, 1), steps))


def divergence(p: Float[Array, "n k"], q: Float[Array, "n k"]) -> Float[Array, " n"]:
    """Return the Kullback-Leibler divergence of softmax(q) from softmax(p), in nats."""
    log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return (jnp.exp(log_p) * (log_p - log_q)).sum(axis=1)


def divergence_ascent(p: Float[Array, "n k"], q: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Return the direction of the divergence's gradient by q, whose absolute values add up to two.

    The gradient is softmax(q) - softmax(p), which is zero in the arithmetic where both are sure of
    the same class. Its other entries are computed as multiples of the largest, and this class's,
    as the sum of all is zero, from them. Where p is q, it is zero.
    """
    log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    surest = jax.nn.one_hot(log_p.argmax(axis=1), p.shape[1], dtype=bool)
    larger = jnp.where(surest, -jnp.inf, jnp.maximum(log_p, log_q))
    scale = jnp.exp(larger - larger.max(axis=1, keepdims=True))
    # q - p = larger * (1 - smaller / larger), with its sign
    others = jnp.where(surest, 0, -scale * jnp.expm1(-jnp.abs(log_q - log_p)))
    others = jnp.where(log_q < log_p, -others, others)
    ascent = jnp.where(surest, -others.sum(axis=1, keepdims=True), others)
    size = jnp.abs(ascent).sum(axis=1, keepdims=True)
    return 2 * ascent / jnp.where(size > 0, size, 1)
