"""DeepFool: to the nearest class boundary of the linearised network, again and again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, norms
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.errors import UsageError

_NUDGE = 1e-4  # the authors' code adds it to the distance, against steps of no length
_TINY = 1e-8
BATCHING = Batching(16)  # each slot holds a gradient for every rival


class _State(NamedTuple):
    x: Array
    image: Array
    label: Array
    classes: Array  # [n, k]: the predicted one and its rivals, the likeliest first
    total: Array  # the sum of the steps, without overshoot


def slopes(
    logits_of: LogitsOf, x: Float[Array, "n h w c"], classes: Int[Array, "n k"]
) -> tuple[Float[Array, "n m"], Float[Array, "n k-1"], Float[Array, "n k-1 h w c"]]:
    """Return the logits, and the rivals' lead over the first class with its gradients."""

    def leads(x):
        logits = logits_of(x)
        chosen = jnp.take_along_axis(logits, classes, axis=1)
        return chosen[:, 1:] - chosen[:, :1], logits

    lead, backward, logits = jax.vjp(leads, x, has_aux=True)
    rivals = lead.shape[1]
    # one example's lead does not depend on another's, so a row of ones serves the whole batch
    rows = jnp.broadcast_to(jnp.eye(rivals, dtype=lead.dtype)[:, None], (rivals, *lead.shape))
    (gradients,) = jax.vmap(backward)(rows)
    return logits, lead, jnp.moveaxis(gradients, 0, 1)


def _step(logits_of, state, taken, *, norm, overshoot) -> loop.Step:
    logits, lead, gradients = slopes(logits_of, state.x, state.classes)
    finished = logits.argmax(axis=-1) != state.label
    size = jax.vmap(norm.dual)(gradients)
    distance = jnp.abs(lead) / (size + _TINY)
    nearest = distance.argmin(axis=1)

    def of_nearest(values):
        index = nearest.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.take_along_axis(values, index, axis=1)[:, 0]

    distance, gradient = of_nearest(distance) + _NUDGE, of_nearest(gradients)
    if norm.name == "linf":
        step = norms.broadcast(distance, gradient) * jnp.sign(gradient)
    else:
        step = norms.broadcast(distance / (of_nearest(size) + _TINY), gradient) * gradient
    total = state.total + step
    moved = jnp.clip(state.image + (1 + overshoot) * total, 0, 1)
    x = jnp.where(norms.broadcast(finished, moved), state.x, moved)
    return loop.Step(state._replace(x=x, total=total), finished, loop.not_finite(gradients))


def deepfool(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""] | None = None,
    *,
    norm: str = "l2",
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    batching: Batching = BATCHING,
) -> Float[np.ndarray, "n h w c"]:
    """Return the images just across the nearest class boundary (Moosavi-Dezfooli et al. 2016).

    An image that is misread already returns as it is; one that no step fooled, where it got to.

    Args:
      key: not used, nothing is drawn.
      norm: the one made small, "l2" or "linf".
      candidates: how many classes, the likeliest at the image, are considered.

    Raises:
      UsageError: pixels not in 0..1, fewer than two candidates, a gradient that is not finite.
    """
    del key
    norm = norms.find(norm, ("l2", "linf"))
    images, labels = checks.labelled(logits_of, images, labels)
    if candidates < 2:
        raise UsageError(f"candidates is {candidates}; a boundary lies between 2 classes")
    order = np.argsort(-loop.logits(logits_of, images, batching), axis=1, stable=True)
    classes = order[:, :candidates].astype(np.int32)
    state = _State(images, images, labels, classes, np.zeros_like(images))
    state = loop.run(
        _step, logits_of, state, steps=steps, batching=batching, norm=norm, overshoot=overshoot
    )
    return state.x
