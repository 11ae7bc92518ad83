"""One side of a measurement, in a process of its own that works when it is told to.

`python -m cnn_jax.benchmark.worker jax` (or torch) reads a line of JSON and answers with one: first
the Spec, answered by the program's facts, then "warm_up", "turn", "memory". It ends with its stdin.
"""

import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from cnn_jax import plugins
from cnn_jax.benchmark.machine import MATRIX_SIDE, processor_seconds
from cnn_jax.benchmark.program import calls_in, create_turn
from cnn_jax.benchmark.spec import Spec
from cnn_jax.errors import UsageError
from cnn_jax.runtime import xla

# Thread pools spin for some milliseconds after the work, input pipelines fill their buffers.
QUIET_SECONDS, QUIET_SHARE, PATIENCE_SECONDS = 0.05, 0.05, 30


def answers(side: ModuleType, commands: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield an answer to each command; `side` is jax_side or torch_side.

    to the Spec: what side.prepare found out, and images_per_call.
    to "warm_up": first_call_seconds and calls (of a turn).
    to "turn": seconds (of a call), and since the turn before idle_seconds and idle_cpu_seconds,
      the processor time that this process, and those that work for it, took meanwhile.
    to "finish": peak_device_bytes and peak_rss_bytes, on a CPU matrix_flops, a second, and the
      outcome of a call, where the task has one.
    """
    spec = Spec(**json.loads(next(commands)))
    plugins.load(spec.plugin)
    program, facts = side.prepare(spec)
    yield facts | {"images_per_call": program.images}
    turn = create_turn(program)
    calls = 1
    idle_since, idle_cpu = time.perf_counter(), processor_seconds()
    for command in commands:
        name = json.loads(command)
        if name == "warm_up":
            start = time.perf_counter()
            turn(1)
            first = (time.perf_counter() - start) / (program.lead + 1)
            calls = calls_in(spec.turn_seconds, turn)
            answer = {"first_call_seconds": first, "calls": calls}
        elif name == "turn":
            idle = time.perf_counter() - idle_since
            idle_cpu = processor_seconds() - idle_cpu
            answer = {
                "seconds": turn(calls),
                "idle_seconds": idle,
                "idle_cpu_seconds": idle_cpu,
            }
        else:
            answer = {
                "peak_device_bytes": side.peak_device_bytes(),
                "peak_rss_bytes": _peak_rss_bytes(),
            }
            if program.outcome is not None:
                output = program.call(program.state, next(program.batches))
                answer["outcome"] = program.outcome(output)
            if facts["platform"] == "cpu":
                product = side.matrix_product(MATRIX_SIDE, spec.dtype)
                answer["matrix_flops"] = 2 * MATRIX_SIDE**3 / shortest(product)
        _wait_until_quiet()
        idle_since, idle_cpu = time.perf_counter(), processor_seconds()
        yield answer


def shortest(function: Callable[[], None], times: int = 10) -> float:
    """Return the least seconds of some calls."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _wait_until_quiet() -> None:
    """Return when this process has all but stopped computing."""
    for _ in range(int(PATIENCE_SECONDS / QUIET_SECONDS)):
        before = processor_seconds()
        time.sleep(QUIET_SECONDS)
        if processor_seconds() - before < QUIET_SHARE * QUIET_SECONDS:
            return


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    """Answer the commands of stdin on what was stdout, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    xla.configure()
    plugins.search_working_directory()
    side = importlib.import_module(f"cnn_jax.benchmark.{sys.argv[1]}_side")
    try:
        for answer in answers(side, iter(sys.stdin.readline, "")):
            print(json.dumps(answer), file=replies, flush=True)
    except (UsageError, side.OutOfMemory) as error:
        message = " ".join(str(error).split())
        if not isinstance(error, UsageError):
            if "out of memory" not in message.lower() and "RESOURCE_EXHAUSTED" not in message:
                raise
            message = f"{sys.argv[1]} is out of memory ({message[:120]}); lower --batch_size"
        print(json.dumps({"error": message}), file=replies, flush=True)
    replies.flush()
    os._exit(0)  # threads that read ahead do not end by themselves


if __name__ == "__main__":
    main()
