"""DDN: the direction follows the gradient, the norm grows or shrinks by what the network says."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, norms
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.tasks.classification import log_odds_against

_SMALLEST_STEP = 0.01  # where the cosine schedule that starts at 1 ends


class _State(NamedTuple):
    x: Array
    image: Array
    wanted: Array  # the target, or the label to get away from
    radius: Array
    best: Array
    best_size: Array


def _step(logits_of, state, taken, *, steps_in_all, gamma, targeted) -> loop.Step:
    sign = -1 if targeted else 1

    def objective(x):
        logits = logits_of(x)
        return sign * log_odds_against(logits, state.wanted).sum(), logits

    gradient, logits = jax.grad(objective, has_aux=True)(state.x)
    fooled = (logits.argmax(axis=1) == state.wanted) == targeted
    size = norms.l2(state.x - state.image)
    better = fooled & (size <= state.best_size)
    share = (1 + jnp.cos(jnp.pi * taken / steps_in_all)) / 2
    length = (_SMALLEST_STEP + (1 - _SMALLEST_STEP) * share).astype(gradient.dtype)
    ascent = norms.NORMS["l2"].ascent(gradient)
    moved = state.x - state.image + norms.broadcast(length, gradient) * ascent
    farthest = norms.l2(jnp.maximum(state.image, 1 - state.image))
    radius = jnp.minimum(state.radius * jnp.where(fooled, 1 - gamma, 1 + gamma), farthest)
    scale = radius / jnp.maximum(norms.l2(moved), jnp.finfo(moved.dtype).tiny)
    new = state._replace(
        x=jnp.clip(state.image + moved * norms.broadcast(scale, moved), 0, 1),
        radius=radius,
        best=jnp.where(norms.broadcast(better, state.x), state.x, state.best),
        best_size=jnp.where(better, size, state.best_size),
    )
    return loop.Step(new, jnp.zeros(len(fooled), bool), loop.not_finite(gradient))


def ddn(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""] | None = None,
    *,
    norm: str = "l2",
    steps: int = 100,
    radius: float = 1.0,
    gamma: float = 0.05,
    targets: Int[Array, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return the nearest adversarial images found; the images where none was (Rony et al. 2019).

    Args:
      key: not used, nothing is drawn.
      norm: "l2", the one made small.
      radius: of the first step.
      gamma: by which share the radius grows after a miss and shrinks after a hit.
      targets: classes to be taken for; by default any but the label.

    Raises:
      UsageError: pixels not in 0..1, a target that is the label, a gradient that is not finite.
    """
    del key
    norms.find(norm, ("l2",))
    images, labels = checks.labelled(logits_of, images, labels)
    wanted = labels if targets is None else checks.targeted(logits_of, images, labels, targets)
    farthest = np.asarray(norms.l2(jnp.maximum(images, 1 - images)))
    first = np.full(len(images), radius, images.dtype)
    state = loop.run(
        _step,
        logits_of,
        _State(images, images, wanted, first, images, farthest),
        steps=steps,
        batching=batching,
        steps_in_all=steps,
        gamma=gamma,
        targeted=targets is not None,
    )
    return state.best
