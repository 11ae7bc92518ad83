"""How a training run talks to whoever watches it."""

from collections.abc import Callable
from typing import NamedTuple


class Callbacks(NamedTuple):
    """How the loop talks to whoever watches it; see experiments/train.py for a progress bar.

    stop: is asked after every step whether to save it and end, as at SIGTERM; of one process alone.
    """

    say: Callable[[str], None] = lambda line: None
    start: Callable[[int, int], None] = lambda step, steps: None
    update: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    stop: Callable[[], bool] = lambda: False
