"""L-BFGS for a batch of images, each with its own search, at one evaluation a step.

optax.lbfgs searches a line inside of one update, in a loop that makes convolutions slow on the
CPU, and treats a batch as one long vector. Here the search is unrolled over the updates: an update
either takes the point it was shown and aims at the next, or halves the way to it. So every update
costs one value and gradient, runs in any loop, and no image waits for another or depends on it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

SUFFICIENT_DECREASE = 1e-4  # Nocedal & Wright 2006, equation 3.6a
SHORTEST_STEP = 1e-3  # below this the curvature in memory is worth nothing: start afresh


class LbfgsState(NamedTuple):
    """Of one image: the last point taken, its value, the way from there, and the curvature."""

    params: PyTree
    value: Float[Array, ""]
    direction: PyTree
    slope: Float[Array, ""]
    step: Float[Array, ""]
    memory: optax.ScaleByLBFGSState


@functools.cache  # the same function for the same memory: what was compiled is found again
def lbfgs(memory_size: int = 10) -> optax.GradientTransformationExtraArgs:
    """Return the optimiser as an optax transformation over leaves [n, ...], one problem each.

    update(gradients, state, params, value=...) needs the values [n] at params. The gradients are
    those of the sum of the values. Liu & Nocedal 1989, with backtracking (Armijo) for the search.
    """
    curvature = optax.scale_by_lbfgs(memory_size)

    def init(params: PyTree) -> LbfgsState:
        def one(params):
            dtype = jax.tree.leaves(params)[0].dtype
            return LbfgsState(
                params,
                jnp.array(jnp.inf, dtype),
                optax.tree.zeros_like(params),
                jnp.zeros((), dtype),
                jnp.ones((), dtype),
                _cast(curvature.init(params), dtype),
            )

        return jax.vmap(one)(params)

    def aim(params, gradients, memory):
        """Return the direction from a point, its slope and the curvature as it is known there."""
        dtype = jax.tree.leaves(params)[0].dtype
        bend = optax.tree.vdot(
            optax.tree.sub(gradients, memory.updates), optax.tree.sub(params, memory.params)
        )
        fresh = _cast(curvature.init(params), dtype)
        memory = _select(bend > 0, memory, fresh)  # the quadratic model must be convex
        direction, memory = curvature.update(gradients, memory, params)
        return (
            optax.tree.scale(-1, direction),
            -optax.tree.vdot(direction, gradients),
            _cast(memory, dtype),
        )

    def update_one(gradients, state, params, value):
        target = state.value + SUFFICIENT_DECREASE * state.step * state.slope
        taken = (value <= target) | jnp.isinf(state.value)
        restart = ~taken & (state.step < SHORTEST_STEP)
        # on a restart the point taken last, whose gradient is in memory, is looked at again
        at = _select(taken, params, state.params)
        gradients = _select(taken, gradients, state.memory.updates)
        fresh = _cast(curvature.init(params), value.dtype)
        aimed = aim(at, gradients, _select(restart, fresh, state.memory))
        direction, slope, memory = _select(
            taken | restart, aimed, (state.direction, state.slope, state.memory)
        )
        step = jnp.where(taken | restart, jnp.ones_like(state.step), state.step / 2)
        value = jnp.where(taken, value, state.value)
        updates = jax.tree.map(lambda a, d, p: a + step * d - p, at, direction, params)
        return updates, LbfgsState(at, value, direction, slope, step, memory)

    def update(gradients, state, params, *, value, **_):
        return jax.vmap(update_one)(gradients, state, params, value)

    return optax.GradientTransformationExtraArgs(init, update)


def _select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _cast(memory: optax.ScaleByLBFGSState, dtype: jnp.dtype) -> optax.ScaleByLBFGSState:
    """Give the weights the dtype of the parameters; optax makes them of JAX's default one."""
    return memory._replace(weights_memory=memory.weights_memory.astype(dtype))
