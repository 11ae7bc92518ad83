"""A training run that is started from the page, paused, and gone on with.

It is the run of `train --recipe=digits`, in a folder of its own: what was stopped goes on from its
last step, to the same numbers. Whatever else is asked for meanwhile is computed between two steps.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_jax import trained
from cnn_jax.data import datasets
from cnn_jax.errors import UsageError
from cnn_jax.playground import computations
from cnn_jax.playground.worker import Frame, Show, Stopped, Work, Worker
from cnn_jax.training import loop
from cnn_jax.training.config import from_dict
from cnn_jax.training.log import read_log
from cnn_jax.training.recipes import recipe

LOOK_EVERY = 0.2  # seconds, while it is paused
EXAMPLES = 12  # that the trained network is shown
# Both change no number of the run: what is looked into is the newest checkpoint.
OFTEN = {"checkpoint_every": 30, "eval_every": 30}


class Training:
    """The run that the page may start, one at a time.

    Args:
      folder: where the runs' folders lie, one a seed.
      options: of the run, instead of the recipe's.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any] | None = None):
        self.folder, self.recipe = folder, "digits"
        self._options = recipe(self.recipe) | OFTEN | dict(options or {})
        self._lock, self._running, self._paused = threading.Lock(), False, False
        self._workdir: Path | None = None

    def subject(self) -> computations.Subject:
        """Return the network of the newest checkpoint of the run that was started last.

        Its photographs are the first ones that it is evaluated by.

        Raises:
          UsageError: none was started, or has a checkpoint.
        """
        if self._workdir is None:
            raise UsageError("no run was started here yet; start one first")
        network = trained.from_workdir(self._workdir)
        name = network.config.dataset
        dataset = datasets.load(name, datasets.evaluation_split(name, None))
        return computations.Subject(network, computations.examples(network, dataset, EXAMPLES))

    def described(self) -> dict[str, Any]:
        """Return what the page tells of it."""
        return {"recipe": self.recipe, "running": self._running, "paused": self._paused}

    def pause(self, paused: bool) -> bool:
        """Let the run wait after its step, or go on; return whether one is running."""
        self._paused = paused and self._running
        return self._running

    def begin(self, seed: int, worker: Worker) -> Work:
        """Return the work of a run, for the worker, between whose steps that does what else waits.

        Raises:
          UsageError: another one is running.
        """

        def run(show: Show) -> Frame:
            with self._lock:
                if self._running:
                    raise UsageError("a run is training already; stop it first")
                self._running, self._paused = True, False
            try:
                return self._train(seed, worker, show)
            finally:
                self._running = self._paused = False

        if self._running:
            raise UsageError("a run is training already; stop it first")
        return run

    def _train(self, seed: int, worker: Worker, show: Show) -> Frame:
        config = from_dict(self._options | {"seed": seed})
        workdir = self._workdir = self.folder / f"{self.recipe}_seed{seed}"
        curves: dict[str, list] = {"loss": [], "accuracy": []}
        state = {"step": 0, "steps": None, "text": "compiling", "stop": False}

        def frame() -> Frame:
            paused = "paused; " if self._paused else ""
            return Frame(
                step=state["step"],
                steps=state["steps"],
                series={name: list(points) for name, points in curves.items()},
                text=f"{paused}{state['text']}",
            )

        def shown() -> None:
            try:
                show(frame)
                worker.give_way()
                while self._paused:
                    worker.give_way(LOOK_EVERY)
                    show(frame)
            except Stopped:
                state["stop"] = True

        def start(step: int, steps: int) -> None:
            state.update(step=step, steps=steps)
            for line in read_log(workdir):
                if line["step"] <= step and "loss" in line:
                    curves["loss"].append((line["step"], line["loss"]))
                    curves["accuracy"].append((line["step"], line["accuracy"]))
            _add_evaluations(curves, workdir)
            shown()

        def update(step: int, metrics: Mapping[str, float]) -> None:
            for name in ("loss", "accuracy"):
                curves[name].append((step, metrics[name]))
            state.update(step=step, text=f"training, loss {metrics['loss']:.3f}")
            shown()

        def say(line: str) -> None:
            state["text"] = line
            _add_evaluations(curves, workdir)

        progress = loop.Callbacks(say, start, update, lambda: state["stop"])
        try:
            result = loop.train(config, workdir, progress)
        except loop.Diverged as error:
            raise UsageError(str(error)) from None
        if result.step < (state["steps"] or 0):
            state["text"] = f"stopped and saved at step {result.step}; started again it goes on"
        elif result.evaluation:
            error = result.evaluation["top1_error"]
            state["text"] = f"done: {1 - error:.2%} of the held-out images are read right"
        return frame()._replace(step=result.step)


def _add_evaluations(curves: dict[str, list], workdir: Path) -> None:
    lines = [line for line in read_log(workdir) if "eval_top1_error" in line]
    curves["held-out accuracy"] = [(line["step"], 1 - line["eval_top1_error"]) for line in lines]
