"""The workers as seen by the one who starts them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

import cnn_jax
from cnn_jax.benchmark.spec import Spec
from cnn_jax.errors import UsageError


class Side:
    """A worker that was started, and what it has answered so far, in `facts`."""

    def __init__(self, name: str, process: subprocess.Popen):
        self.name, self.facts = name, {}
        self._process = process
        self.forget()

    def ask(self, command: Any) -> dict[str, Any]:
        """Return the worker's answer, which joins the facts.

        Raises:
          UsageError: what the worker raised, or that it was killed.
        """
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            if status == -signal.SIGKILL:
                raise UsageError(
                    f"the {self.name} worker was killed, for its memory if nobody did; "
                    "lower --batch_size"
                )
            raise RuntimeError(f"the {self.name} worker ended with status {status}; see above")
        answer = json.loads(line)
        if "error" in answer:
            raise UsageError(answer["error"])
        self.facts |= answer
        return answer

    def turn(self) -> float:
        """Return the seconds of a call; and keep how busy the worker was since its last turn."""
        answer = self.ask("turn")
        self._idle += np.array([answer["idle_cpu_seconds"], answer["idle_seconds"]])
        self.facts["idle_cpu_share"] = float(self._idle[0] / self._idle[1])
        return answer["seconds"]

    def forget(self) -> None:
        """Count the idle time anew."""
        self._idle = np.zeros(2)


@contextmanager
def started(name: str, spec: Spec, environment: Mapping[str, str] | None = None) -> Iterator[Side]:
    """Start a worker, "jax" or "torch", yield it prepared, and end it at the end."""
    root = str(Path(cnn_jax.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cnn_jax.benchmark.worker", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | dict(environment or {}),
    )
    try:
        side = Side(name, process)
        side.ask(spec._asdict())
        yield side
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
