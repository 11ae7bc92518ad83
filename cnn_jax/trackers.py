"""Trackers of experiments: services that get a run's numbers while it is trained.

A tracker is any function(config, workdir) that returns log(step, metrics); training calls it by its
address, --tracker=package.module:function:

    def to_stdout(config, workdir):
        print(config["model"], workdir)
        return lambda step, metrics: print(step, metrics)

config is the run's options as a dict, workdir its folder as a Path, metrics a dict of floats: those
of metrics.jsonl, an evaluation's by names that begin with "eval_". A resumed run calls the function
again and may repeat the steps after its last checkpoint. Only the first of several processes
tracks.
"""

import dataclasses
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from cnn_jax import plugins
from cnn_jax.errors import UsageError
from cnn_jax.training.config import TrainConfig

Log = Callable[[int, Mapping[str, float]], Any]


def check(address: str | None) -> None:
    """Raise UsageError where a tracker's address names nothing that could be called."""
    if address is None:
        return
    if not plugins.is_address(address):
        raise UsageError(
            f"--tracker={address} is no address; write package.module:function, "
            "or cnn_jax.trackers:wandb"
        )
    if not callable(plugins.find(address, "tracker")):
        raise UsageError(f"the tracker {address} is not a function")


def open_tracker(config: TrainConfig, workdir: Path, warn: Callable[[str], None]) -> Log:
    """Return log(step, metrics) of the run's tracker, which never fails: it warns once and ends.

    Without a tracker, and in all processes but the first, it does nothing.

    Raises:
      UsageError: what the tracker itself refuses, such as a package that is missing.
    """
    track: Log | None = None

    def stop(error: Exception) -> None:
        nonlocal track
        track = None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warn(f"the tracker {config.tracker} failed and is not called again: {reason}")

    def log(step: int, metrics: Mapping[str, float]) -> None:
        if track is None:
            return
        try:
            track(step, dict(metrics))
        except Exception as error:  # whatever it is, the training is worth more
            stop(error)

    if config.tracker is not None and jax.process_index() == 0:
        function = plugins.find(config.tracker, "tracker")
        try:
            track = function(dataclasses.asdict(config), workdir)
            if not callable(track):
                raise TypeError(f"it returned {track!r} and no log(step, metrics)")
        except UsageError:
            raise
        except Exception as error:  # as above
            stop(error)
    return log


def wandb(config: Mapping[str, Any], workdir: Path) -> Log:
    """Log to Weights & Biases, a run of theirs for each workdir; needs cnn_jax's extra "wandb".

    The variables WANDB_PROJECT, WANDB_MODE and their kin hold, see docs.wandb.ai.
    """
    try:
        import wandb as service  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(
            "--tracker=cnn_jax.trackers:wandb needs Weights & Biases: pip install 'cnn_jax[wandb]'"
        ) from None
    file = workdir / "wandb_id"  # a resumed run goes on in its own curves
    if not file.exists():
        file.write_text(secrets.token_hex(8))
    run = service.init(
        config=dict(config), name=workdir.name, dir=workdir, id=file.read_text(), resume="allow"
    )
    return lambda step, metrics: run.log(dict(metrics), step=step)
