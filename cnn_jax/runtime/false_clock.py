"""Runs a module by a wall clock that is off by as many seconds as a file says.

python -m cnn_jax.runtime.false_clock FILE MODULE ARGUMENTS...

It is the clock of Python's `time.time` and `time.time_ns`, which this process alone reads; nobody
else's clock changes.
"""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path


def off_by(offset: Callable[[], float]) -> tuple[Callable[[], float], Callable[[], int]]:
    """Return time.time and time.time_ns as they are now, off by so many seconds each time."""
    seconds, nanoseconds = time.time, time.time_ns
    return (
        lambda: seconds() + offset(),
        lambda: nanoseconds() + int(1e9 * offset()),
    )


def main() -> None:
    """Run the module that the arguments name, with what follows it as its arguments."""
    _, file, *sys.argv = sys.argv
    time.time, time.time_ns = off_by(lambda: float(Path(file).read_text()))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
