"""Interleaved measurements and their summaries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def interleave(turns: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return what each side's turns gave, taken in the order A B A B."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            taken[name].append(turn())
    return taken


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return the median, the quartiles between which half of the values lie, and the values."""
    first, median, third = np.quantile(np.asarray(values, float), (0.25, 0.5, 0.75))
    return {
        "median": float(median),
        "first_quartile": float(first),
        "third_quartile": float(third),
        "values": [float(value) for value in values],
    }


def ratio(of: Sequence[float], over: Sequence[float]) -> dict[str, Any]:
    """Return the summary of the neighbours' ratios, turn by turn."""
    return summary([one / other for one, other in zip(of, over, strict=True)])
