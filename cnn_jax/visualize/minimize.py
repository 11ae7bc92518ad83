"""Minimising over images: the one loop of ascent, inversion, style and dreams of a batch."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from cnn_jax.runtime.platform_loop import Progress, repeat

Loss = Callable[..., Float[Array, " n"]]  # loss(params, key, *args)
# watch(steps made, params, the loss before the last step); what it raises ends the descent
Watch = Callable[[int, PyTree, Float[Array, " n"]], None]


class Minimum(NamedTuple):
    """params: where it ended, leaves [n, ...].  history: the loss before each step."""

    params: PyTree
    history: Float[Array, "steps n"]


def minimize(
    loss: Loss,
    params: PyTree,
    key: Array | None = None,
    *args: PyTree,
    steps: int,
    optimizer: optax.GradientTransformation,
    project: Callable[[PyTree], PyTree] = lambda params: params,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Minimum:
    """Minimise the sum of the losses of n images.

    Args:
      loss: f(params, key, *args) -> [n], one value an image; the key differs from step to step.
      params: leaves [n, ...].
      args: arrays, and functions as `jax.tree_util.Partial`: what is not to be compiled in.
      key: None for a loss that draws nothing. Then each image's lowest point is returned, else the
        last one.
      optimizer: of optax, or `lbfgs()`.
      project: applied to the params after each step.
      watch: is shown the params after each step, of a loss that draws nothing the lowest so far.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    shape = jax.eval_shape(loss, params, key, *args)
    history = jnp.zeros((steps, *shape.shape), shape.dtype)
    best = (jnp.full(shape.shape, jnp.inf, shape.dtype), params) if key is None else None
    state = (params, optimizer.init(params), history, best)
    step = _stepper(loss, optimizer.update, project)
    watched = None if watch is None else _watched(watch)
    params, _, history, best = repeat(
        step, state, steps, key, *args, progress=progress, watch=watched
    )
    if key is None:
        _, params = _lower(best, (jax.jit(loss)(params, None, *args), params))
    return Minimum(params, history)


def _watched(watch: Watch) -> Callable[[int, PyTree], None]:
    def watched(made, state):
        params, _, history, best = state
        watch(made, params if best is None else best[1], history[made - 1])

    return watched


@functools.lru_cache(maxsize=16)  # so that minimising again, of other arguments, compiles nothing
def _stepper(loss: Loss, update: Callable, project: Callable) -> Callable:
    def total(params, key, args):
        values = loss(params, key, *args)
        return values.sum(), values

    def step(i, state, key, *args):
        params, optimizer_state, history, best = state
        now = None if key is None else jax.random.fold_in(key, i)
        gradients, values = jax.grad(total, has_aux=True)(params, now, args)
        if key is None:
            best = _lower(best, (values, params))
        updates, optimizer_state = update(gradients, optimizer_state, params, value=values)
        params = project(optax.apply_updates(params, updates))
        return params, optimizer_state, history.at[i].set(values), best

    return step


def _lower(a: tuple[Array, PyTree], b: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
    """Return of each image the (value, params) of the lower value; a NaN is never lower."""
    lower = b[0] < a[0]

    def choose(x, y):
        return jnp.where(lower.reshape(-1, *[1] * (x.ndim - 1)), y, x)

    return jax.tree.map(choose, a, b)
