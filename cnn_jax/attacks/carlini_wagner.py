"""Carlini and Wagner's l2 attack: Adam in tanh space, and a search for the loss's constant."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, losses, norms
from cnn_jax.attacks.loop import Batching, LogitsOf

_INSIDE = 1 - 1e-6  # atanh of a pixel that is 0 or 1 is infinite
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8  # Adam's
_NO_BOUND = 1e10


class _State(NamedTuple):
    image: Array
    wanted: Array  # the target, or the label to get away from
    constant: Array
    shift: Array  # of the image in tanh space, and Adam's moments of it
    mean: Array
    square: Array
    best: Array
    best_size: Array
    found: Array  # whether this constant gave an adversarial image
    checked_loss: Array


def _step(
    logits_of, state, taken, *, learning_rate, confidence, targeted, abort_every
) -> loop.Step:
    sign = -1 if targeted else 1
    origin = jnp.arctanh((state.image * 2 - 1) * _INSIDE)

    def objective(shift):
        x = (jnp.tanh(origin + shift) + 1) / 2
        logits = logits_of(x)
        lead = sign * losses.margin(logits, state.wanted)
        squares = jnp.square(norms.flat(x - state.image)).sum(axis=1)
        loss = squares + state.constant * jnp.maximum(lead + confidence, 0)
        return loss.sum(), (loss, x, lead, jnp.sqrt(squares))

    gradient, (loss, x, lead, size) = jax.grad(objective, has_aux=True)(state.shift)
    fooled = lead + confidence <= 0 if targeted else lead + confidence < 0
    better = fooled & (size < state.best_size)
    mean = _BETA1 * state.mean + (1 - _BETA1) * gradient
    square = _BETA2 * state.square + (1 - _BETA2) * jnp.square(gradient)
    count = norms.broadcast((taken + 1).astype(x.dtype), x)
    rate = learning_rate / (1 - _BETA1**count)
    spread = jnp.sqrt(square) / jnp.sqrt(1 - _BETA2**count) + _TINY
    look = taken % abort_every == 0 if abort_every else jnp.zeros_like(fooled)
    new = state._replace(
        shift=state.shift - rate * mean / spread,
        mean=mean,
        square=square,
        best=jnp.where(norms.broadcast(better, x), x, state.best),
        best_size=jnp.where(better, size, state.best_size),
        found=state.found | fooled,
        checked_loss=jnp.where(look, loss, state.checked_loss),
    )
    return loop.Step(new, look & (loss > 0.9999 * state.checked_loss), loop.not_finite(gradient))


def carlini_wagner(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""] | None = None,
    *,
    norm: str = "l2",
    steps: int = 10_000,
    searches: int = 9,
    learning_rate: float = 0.01,
    constant: float = 1e-3,
    confidence: float = 0.0,
    abort_early: bool = True,
    targets: Int[Array, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return the nearest adversarial images found; the images where none was.

    Carlini & Wagner 2017, section VI. The constant is raised tenfold until it gives an adversarial
    image, then bisected, for each image by itself.

    Args:
      key: not used, nothing is drawn.
      norm: "l2", the one made small.
      steps: of Adam, at most, for each of the constants.
      searches: constants tried.
      confidence: the lead of the wrong class that is asked for.
      abort_early: leave a constant when a tenth of the steps did not lower an image's loss.
      targets: classes to be taken for; by default any but the label.

    Raises:
      UsageError: pixels not in 0..1, a target that is the label, a gradient that is not finite.
    """
    del key
    norms.find(norm, ("l2",))
    images, labels = checks.labelled(logits_of, images, labels)
    wanted = labels if targets is None else checks.targeted(logits_of, images, labels, targets)

    def full(value, dtype=images.dtype):
        return np.full(len(images), value, dtype)

    nothing = np.zeros_like(images)
    constants, low, high = full(constant), full(0), full(_NO_BOUND)
    best, best_size = images, full(np.inf)
    for search in range(searches):
        if searches >= 10 and search == searches - 1:
            constants = high
        state = loop.run(
            _step,
            logits_of,
            _State(
                images,
                wanted,
                constants,
                nothing,
                nothing,
                nothing,
                best,
                best_size,
                full(False, bool),
                full(np.inf),
            ),
            steps=steps,
            batching=batching,
            learning_rate=learning_rate,
            confidence=confidence,
            targeted=targets is not None,
            abort_every=max(1, steps // 10) if abort_early else 0,
        )
        best, best_size, found = state.best, state.best_size, state.found
        high = np.where(found, np.minimum(high, constants), high)
        low = np.where(found, low, np.maximum(low, constants))
        bounded = high < _NO_BOUND
        constants = np.where(bounded, (low + high) / 2, constants * 10)
    return best
