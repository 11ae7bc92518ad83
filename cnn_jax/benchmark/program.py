"""What a task repeats, the time of some repetitions, and what came of it."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


def _keep(state: Any, output: Any) -> Any:
    return state


class Program(NamedTuple):
    """A call to be repeated: output = call(state, batch).

    state: of the first call; next_state(state, output) is that of the next.
    batches: one for each call, without end.
    images: how many images a call takes.
    wait(output): returns when that output, and so all before it, is computed.
    lead: calls at the start of a turn that are not timed: they wake the threads, and use up what
      the input pipeline had ready.
    outcome(output) -> numbers by name, which show that another side did the same.
    facts: to be reported, by name.
    """

    call: Callable[[Any, Any], Any]
    state: Any
    batches: Iterator[Any]
    images: int
    next_state: Callable[[Any, Any], Any] = _keep
    wait: Callable[[Any], Any] = lambda output: None
    lead: int = 1
    outcome: Callable[[Any], dict[str, float]] | None = None
    facts: dict[str, Any] = {}  # noqa: RUF012 - never changed


def create_turn(program: Program) -> Callable[[int], float]:
    """Return turn(calls) -> mean seconds of one of these calls; turns go on from each other."""
    state = program.state

    def repeat(calls: int) -> None:
        nonlocal state
        output = None
        for _ in range(calls):
            output = program.call(state, next(program.batches))
            state = program.next_state(state, output)
        program.wait(output)

    def turn(calls: int) -> float:
        if program.lead:
            repeat(program.lead)
        start = time.perf_counter()
        repeat(calls)
        return (time.perf_counter() - start) / calls

    return turn


def calls_in(seconds: float, turn: Callable[[int], float]) -> int:
    """Return how many calls, one at least, last about so many seconds; for 0 none is tried."""
    if seconds == 0 or turn(1) >= seconds:
        return 1
    return max(1, round(seconds / max(turn(2), 1e-7)))


def attack_outcome(
    pixels: Float[np.ndarray, "n ..."],
    adversarial: Float[np.ndarray, "n ..."],
    classes: Int[np.ndarray, " n"],
    found: Int[np.ndarray, " n"],
) -> dict[str, float]:
    """Return the share of the images whose class changed, and the perturbations' median length.

    Args:
      classes, found: before and after.
    """
    lengths = np.linalg.norm((adversarial - pixels).reshape(len(pixels), -1), axis=1)
    return {"fooled": float((found != classes).mean()), "median_l2": float(np.median(lengths))}


def picture_outcome(picture: Float[np.ndarray, "..."]) -> dict[str, float]:
    """Return the mean of the absolute values of a map, or of an image's change."""
    return {"mean_absolute": float(np.abs(picture).mean())}
