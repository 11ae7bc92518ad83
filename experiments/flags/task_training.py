"""Training with a progress bar, and the flags of tasks that have a report of their own."""

import sys
from collections.abc import Callable

import jax
from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.runtime.progress import progress_bar
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.task import Task

from . import training as training_flags


def define(workdir: str, recipe: str, pictures: int, shown: str) -> None:
    """Define the flags of training, --workdir and --pictures, with these defaults.

    Args:
      shown: what the pictures show, for the help.
    """
    flags.DEFINE_string(
        "workdir",
        workdir,
        "Folder of the run, for its checkpoints, results and report.",
        module_name="Output",
    )
    flags.DEFINE_integer(
        "pictures",
        pictures,
        f"Number of evaluation images to show {shown}.",
        module_name="Output",
    )
    training_flags.define()
    flags.FLAGS.set_default("recipe", recipe)


def run(task: Task, write: Callable[[str, loop.Result, int], None]) -> None:
    """Train as the flags say and write(workdir, result, pictures) the report."""
    values = flags.FLAGS
    if values.pictures < 1:
        raise UsageError(f"--pictures={values.pictures} is too few; give 1 at least")
    config = training_flags.config_from_flags(values)
    train(config, values.workdir, task, lambda *result: write(*result, values.pictures))


def train(
    config: TrainConfig, workdir: str, task: Task, write: Callable[[str, loop.Result], None]
) -> None:
    """Train with a progress bar and write(workdir, result), though the evaluation fail.

    Raises:
      EvaluationFailed: after that.
      UsageError: after that, where what failed was a mistake of the user's.
    """
    try:
        with progress_bar(config.batch_size) as progress:
            result, failure = loop.train(config, workdir, progress, task=task), None
    except loop.Diverged as error:
        sys.exit(f"error: {error}")
    except loop.EvaluationFailed as error:
        result, failure = error.result, error
    if jax.process_index() == 0:
        write(workdir, result)
    if failure is not None:
        if isinstance(failure.__cause__, UsageError):
            raise UsageError(str(failure)) from failure
        raise failure
