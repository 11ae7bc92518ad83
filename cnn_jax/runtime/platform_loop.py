"""Repeating a step many times, by the loop that is fast on the platform at hand.

XLA's CPU backend runs a convolution inside `lax.fori_loop` three to ten times slower than the same
convolution outside of a loop. So on the CPU a Python loop calls the jitted step; elsewhere many
steps are one program, which no host is waited for in between.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, PyTree

Step = Callable[..., PyTree]  # step(i, state, *args) -> state
Progress = Callable[[Iterable, int], Iterable]  # progress(items, how_many) -> the same items
# watch(steps made, state), called between steps; what it raises ends the loop
Watch = Callable[[int, PyTree], None]

STEPS_A_PROGRAM = 32  # on an accelerator: between two ticks of the progress bar


def repeat(
    step: Step,
    state: PyTree,
    steps: int,
    *args: PyTree,
    progress: Progress | None = None,
    watch: Watch | None = None,
    platform: str | None = None,
) -> PyTree:
    """Return step(steps - 1, ... step(1, step(0, state, *args), *args) ..., *args).

    Inside another traced function it is `lax.fori_loop`, unrolled on the CPU.

    Args:
      step: pure; i is a traced int32. The same function object is compiled once, however often it
        is repeated, so what changes between calls belongs into the state or args.
      progress: wraps the counting of the steps, as a progress bar does.
      watch: is shown the state after each step; on an accelerator after each program.
      platform: the one to choose for; by default that of JAX's default device.
    """
    cpu = (platform or jax.default_backend()) == "cpu"
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((state, args))):
        return lax.fori_loop(0, steps, lambda i, s: step(i, s, *args), state, unroll=cpu)
    count = progress or (lambda items, total: items)
    if cpu:
        run = jax.jit(step)
        for i in count(range(steps), steps):
            state = run(i, state, *args)
            if watch is not None:
                watch(i + 1, state)
        return state
    run = jax.jit(_run_several, static_argnums=0)
    starts = range(0, steps, STEPS_A_PROGRAM)
    for start in count(starts, len(starts)):
        stop = min(start + STEPS_A_PROGRAM, steps)
        state = run(step, start, stop, state, args)
        if watch is not None:
            watch(stop, state)
    return state


def _run_several(
    step: Step, start: int | Array, stop: int | Array, state: PyTree, args: tuple
) -> PyTree:
    return lax.fori_loop(start, stop, lambda i, s: step(i, s, *args), state)


def repeat_while(
    step: Callable[..., tuple[PyTree, Bool[Array, ""]]],
    state: PyTree,
    *args: PyTree,
    watch: Watch | None = None,
    platform: str | None = None,
) -> PyTree:
    """Return the state after step(state, *args) -> (state, more), as often as it asks for more.

    The step is made once at least; the state's arrays are given up to it.

    Args:
      step, platform: as of `repeat`.
      watch: is shown the state after each step, and has to copy what it keeps; steps are then
        programs of their own on every platform.
    """
    if watch is None and (platform or jax.default_backend()) != "cpu":
        run = jax.jit(_run_while, static_argnums=0, donate_argnums=1)
        return run(step, state, args)
    run = jax.jit(step, donate_argnums=0)
    more, made = True, 0
    while more:
        state, more = run(state, *args)
        made += 1
        if watch is not None:
            watch(made, state)
    return state


def _run_while(step: Callable, state: PyTree, args: tuple) -> PyTree:
    def body(carry):
        return step(carry[0], *args)

    return lax.while_loop(lambda carry: carry[1], body, (state, jnp.array(True)))[0]
