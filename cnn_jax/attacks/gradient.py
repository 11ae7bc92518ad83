"""Attacks that climb the loss within a ball around the image: FGSM, PGD, with momentum."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, norms
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.tasks.classification import log_odds_against


class _State(NamedTuple):
    x: Array
    image: Array
    wanted: Array  # the target, or the label to get away from
    eps: Array
    step_size: Array
    velocity: Array


def _step(logits_of, state, taken, *, norm, momentum, targeted, early_stop) -> loop.Step:
    """Look at x, and move it unless it is fooled already."""
    sign = -1 if targeted else 1

    def objective(x):
        logits = logits_of(x)
        return sign * log_odds_against(logits, state.wanted).sum(), logits

    gradient, logits = jax.grad(objective, has_aux=True)(state.x)
    velocity = gradient
    if momentum:
        size = jnp.maximum(norms.l1(gradient), jnp.finfo(gradient.dtype).tiny)
        velocity = momentum * state.velocity + gradient / norms.broadcast(size, gradient)
    step = norms.broadcast(state.step_size, gradient) * norm.ascent(velocity)
    moved = state.image + norm.project(state.x + step - state.image, state.eps)
    fooled = (logits.argmax(axis=-1) == state.wanted) == targeted
    finished = fooled & early_stop
    x = jnp.where(norms.broadcast(finished, moved), state.x, jnp.clip(moved, 0, 1))
    return loop.Step(state._replace(x=x, velocity=velocity), finished, loop.not_finite(gradient))


def pgd(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""] | None = None,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    momentum: float = 0.0,
    targets: Int[Array, " n"] | None = None,
    early_stop: bool = False,
    indices: Int[Array, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return the images after projected gradient ascent of the cross-entropy (Madry et al. 2018).

    Its direction is that of tasks.classification.log_odds_against, which no scale of the logits
    makes vanish.

    Args:
      images: in 0..1, in float32 or float64, and so is what returns.
      key: of the random starts; each example folds its index into it.
      eps: the ball's radius in the norm, "linf", "l2" or "l1".
      step_size: of each step in the norm; by default 2.5 eps / steps.
      random_start: start at a uniform draw from the ball, else at the image.
      restarts: tries, of which those after the first go to images that are not fooled yet.
      momentum: decay of the accumulated gradients, each divided by its l1 norm (Dong et al. 2018).
      targets: classes to be taken for; by default any but the label.
      early_stop: leave an image as soon as it is fooled, instead of taking all steps.
      indices: the examples' numbers, by default 0 to n - 1.

    Raises:
      UsageError: pixels or budget not in units of 0..1, a target that is the label, no key, a
        gradient that is not finite.
    """
    norm = norms.find(norm)
    images, labels = checks.labelled(logits_of, images, labels)
    checks.check_eps(eps, norm.name, images[:1].size)
    wanted = labels if targets is None else checks.targeted(logits_of, images, labels, targets)
    step_size = 2.5 * eps / steps if step_size is None else step_size

    def attempt(restart, chosen):
        clean = images[chosen]
        start = clean
        if random_start:
            keys = checks.example_keys(key, indices, len(images))[chosen]
            start = _random_start(keys, restart, clean, eps, norm=norm)
        return loop.run(
            _step,
            logits_of,
            _State(
                start,
                clean,
                wanted[chosen],
                np.full(len(clean), eps, images.dtype),
                np.full(len(clean), step_size, images.dtype),
                np.zeros_like(clean),
            ),
            steps=steps,
            batching=batching,
            norm=norm,
            momentum=momentum,
            targeted=targets is not None,
            early_stop=early_stop,
        ).x

    adversarial = attempt(0, np.arange(len(images)))
    for restart in range(1, restarts):
        predicted = loop.predictions(logits_of, adversarial, batching)
        robust = np.flatnonzero((predicted == wanted) != (targets is not None))
        adversarial[robust] = attempt(restart, robust)
    checks.assert_within(images, adversarial, eps, norm.name)
    return adversarial


@partial(jax.jit, static_argnames="norm")
def _random_start(keys, restart, images, eps, *, norm):
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, restart)
    return jnp.clip(images + eps * norm.random(keys, images), 0, 1)


def fgsm(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""] | None = None,
    *,
    eps: float,
    norm: str = "linf",
    **options,
) -> Float[np.ndarray, "n h w c"]:
    """Return the images after one step of size eps (Goodfellow et al. 2015), see pgd."""
    once = {"steps": 1, "step_size": eps, "random_start": False}
    return pgd(logits_of, images, labels, key, eps=eps, norm=norm, **{**once, **options})
