"""Auto-PGD: projected gradient ascent whose step size adapts to each image (Croce & Hein 2020)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax import errors
from cnn_jax.attacks import checks, loop, losses, norms
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.errors import UsageError

_MOMENTUM = 0.75  # the new step's share, the rest is the step before
_RHO = 0.75  # share of a period's steps that must climb, or the step size is halved

# by loss: the function without and with a target
LOSSES: dict[str, tuple[Callable, Callable]] = {
    "ce": (losses.away_by_cross_entropy, losses.towards_by_cross_entropy),
    "dlr": (losses.away_by_dlr, losses.towards_by_dlr),
}
_CLASSES = {losses.away_by_dlr: 3, losses.towards_by_dlr: 4}  # that it compares, by default 2
# the authors' code compares the second loss with 0, which no cross-entropy is below
_FIRST = {losses.away_by_cross_entropy: -np.inf, losses.towards_by_cross_entropy: np.inf}


class _State(NamedTuple):
    x: Array
    before: Array  # x before the step that led to x
    image: Array
    label: Array
    target: Array
    eps: Array
    step_size: Array
    best: Array  # the x of highest loss, its gradient and its loss
    best_gradient: Array
    best_loss: Array
    adversarial: Array  # the last x that was fooled
    fooled: Array
    last_loss: Array
    climbs: Array  # steps of this period that raised the loss
    steps_left: Array  # of this period
    period: Array
    shorter: Array  # by how much the next period is shorter, and what it is at least
    shortest: Array
    halved: Array  # whether the last check halved the step size, and the best loss it found
    checked_loss: Array


def _step(logits_of, state, taken, *, norm, loss, success, early_stop) -> loop.Step:
    """Look at x, check the progress at the end of a period, and move."""

    def objective(x):
        logits = logits_of(x)
        values = loss(logits, state.label, state.target)
        return values.sum(), (values, logits)

    gradient, (value, logits) = jax.grad(objective, has_aux=True)(state.x)
    first = taken == 0

    def choose(condition, new, old):
        return jnp.where(norms.broadcast(condition, new), new, old)

    fooled_now = success(logits.argmax(axis=1), state.label, state.target)
    adversarial = choose(first | fooled_now, state.x, state.adversarial)
    fooled = state.fooled | fooled_now
    better = first | (value > state.best_loss)
    best = choose(better, state.x, state.best)
    best_gradient = choose(better, gradient, state.best_gradient)
    best_loss = jnp.where(better, value, state.best_loss)

    climbs = state.climbs + (~first & (value > state.last_loss))
    last_loss = jnp.where(first, state.last_loss, value)
    checked_loss = jnp.where(first, best_loss, state.checked_loss)
    steps_left = state.steps_left - ~first
    check = ~first & (steps_left == 0)
    stuck = ~state.halved & (checked_loss >= best_loss)
    halve = check & ((climbs <= _RHO * state.period) | stuck)
    period = jnp.where(
        check,
        jnp.maximum(state.period - state.shorter, state.shortest),
        state.period,
    )
    step_size = jnp.where(halve, state.step_size / 2, state.step_size)
    x, gradient = choose(halve, best, state.x), choose(halve, best_gradient, gradient)

    def within(x):
        return jnp.clip(state.image + norm.project(x - state.image, state.eps), 0, 1)

    share = norms.broadcast(jnp.where(first, 1, _MOMENTUM).astype(x.dtype), x)
    ascended = within(x + norms.broadcast(step_size, x) * norm.ascent(gradient))
    moved = within(x + share * (ascended - x) + (1 - share) * (x - state.before))
    new = state._replace(
        x=moved,
        before=x,
        step_size=step_size,
        best=best,
        best_gradient=best_gradient,
        best_loss=best_loss,
        adversarial=adversarial,
        fooled=fooled,
        last_loss=last_loss,
        climbs=jnp.where(check, 0, climbs),
        steps_left=jnp.where(check, period, steps_left),
        period=period,
        halved=jnp.where(check, halve, state.halved),
        checked_loss=jnp.where(check, best_loss, checked_loss),
    )
    return loop.Step(new, fooled & early_stop, loop.not_finite(gradient))


def _away(predicted: Array, label: Array, target: Array) -> Array:
    return predicted != label


def _onto(predicted: Array, label: Array, target: Array) -> Array:
    return predicted == target


@partial(jax.jit, static_argnames="norm")
def _random_start(keys, number, images, eps, *, norm):
    """Draw from the surface of the ball."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
    draw = norm.random(keys, images)
    size = norms.broadcast(norm.size(draw), draw)
    return jnp.clip(images + eps * draw / size, 0, 1)


def _climb(
    logits_of, images, labels, targets, start, *, eps, steps, early_stop, batching, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return adversarial images, or those of highest loss, and which are adversarial."""

    def full(value, dtype=images.dtype):
        return np.full(len(images), value, dtype)

    period, shorter, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    state = _State(
        x=start,
        before=start,
        image=images,
        label=labels,
        target=targets,
        eps=full(eps),
        step_size=full(2 * eps),
        best=start,
        best_gradient=np.zeros_like(images),
        best_loss=full(-np.inf),
        adversarial=start,
        fooled=full(False, bool),
        last_loss=full(_FIRST.get(options["loss"], 0)),
        climbs=full(0, np.int32),
        steps_left=full(period, np.int32),
        period=full(period, np.int32),
        shorter=full(shorter, np.int32),
        shortest=full(shortest, np.int32),
        halved=full(True, bool),
        checked_loss=full(-np.inf),
    )
    options |= {"early_stop": early_stop, "batching": batching}
    state = loop.run(_step, logits_of, state, steps=steps + 1, **options)
    fooled = norms.broadcast(state.fooled, images)
    return np.where(fooled, state.adversarial, state.best), state.fooled


def _loss(name: str, targeted: bool, classes: int) -> Callable:
    if name not in LOSSES:
        raise errors.unknown("loss", name, LOSSES)
    loss = LOSSES[name][targeted]
    if classes < _CLASSES.get(loss, 2):
        raise UsageError(
            f"this loss compares {_CLASSES[loss]} classes and the network tells {classes} apart; "
            "take loss='ce'"
        )
    return loss


def apgd(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""] | None = None,
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "ce",
    steps: int = 100,
    restarts: int = 1,
    targets: Int[Array, " n"] | None = None,
    start: Float[Array, "n h w c"] | None = None,
    early_stop: bool = False,
    indices: Int[Array, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return adversarial images where there was one, elsewhere those of the highest loss.

    Args:
      eps: the ball's radius in the norm, "linf" or "l2".
      loss: "ce", the cross-entropy, or "dlr", the difference of logits ratio.
      restarts: tries, of which those after the first go to images that are not fooled yet.
      targets: classes to be taken for; by default any but the label.
      start: where the first try begins; by default on the ball's surface, drawn by the key.
      early_stop: leave an image as soon as it is fooled, instead of taking all steps.
      indices: the examples' numbers, which their randomness derives from; by default 0 to n - 1.

    Raises:
      UsageError: as for gradient.pgd; too few classes for the loss.
    """
    norm = norms.find(norm, ("linf", "l2"))
    images, labels = checks.labelled(logits_of, images, labels)
    checks.check_eps(eps, norm.name, images[:1].size)
    wanted = labels if targets is None else checks.targeted(logits_of, images, labels, targets)
    climb = partial(
        _climb,
        logits_of,
        eps=eps,
        steps=steps,
        early_stop=early_stop,
        batching=batching,
        norm=norm,
        loss=_loss(loss, targets is not None, loop.classes(logits_of, images)),
        success=_away if targets is None else _onto,
    )
    adversarial, left = images.copy(), np.arange(len(images))
    for restart in range(restarts):
        if start is None or restart:
            keys = checks.example_keys(key, indices, len(images))[left]
            begin = np.asarray(_random_start(keys, restart, images[left], eps, norm=norm))
        else:
            begin = np.asarray(start, images.dtype)
        adversarial[left], fooled = climb(images[left], labels[left], wanted[left], begin)
        left = left[~fooled]
    checks.assert_within(images, adversarial, eps, norm.name)
    return adversarial


def apgd_targeted(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""],
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "dlr",
    steps: int = 100,
    most_targets: int = 9,
    early_stop: bool = False,
    indices: Int[Array, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return what apgd finds on its way to each of the likeliest wrong classes in turn.

    Any wrong class is a success, and an image that is fooled is not taken to further classes.

    Args:
      most_targets: how many classes; fewer where the network has no more. Else see apgd.
    """
    norm = norms.find(norm, ("linf", "l2"))
    images, labels = checks.labelled(logits_of, images, labels)
    checks.check_eps(eps, norm.name, images[:1].size)
    ranked = likeliest_others(loop.logits(logits_of, images, batching), labels)
    loss = _loss(loss, True, ranked.shape[1] + 1)
    adversarial, left = images.copy(), np.arange(len(images))
    for rank in range(min(most_targets, ranked.shape[1])):
        keys = checks.example_keys(key, indices, len(images))[left]
        begin = np.asarray(_random_start(keys, rank, images[left], eps, norm=norm))
        adversarial[left], fooled = _climb(
            logits_of,
            images[left],
            labels[left],
            ranked[left, rank],
            begin,
            eps=eps,
            steps=steps,
            early_stop=early_stop,
            batching=batching,
            norm=norm,
            loss=loss,
            success=_away,
        )
        left = left[~fooled]
    checks.assert_within(images, adversarial, eps, norm.name)
    return adversarial


def likeliest_others(
    logits: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"]
) -> Int[np.ndarray, "n k-1"]:
    """Return the classes other than the label, the likeliest first."""
    order = np.argsort(-logits, axis=1, kind="stable").astype(np.int32)
    return order[order != labels[:, None]].reshape(len(order), -1)
