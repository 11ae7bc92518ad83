"""Training a network for a task that has a recipe and a report of its own."""

import sys
from collections.abc import Callable

import jax
from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.runtime.progress import progress_bar
from cnn_jax.training import loop
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
    try:
        with progress_bar(config.batch_size) as progress:
            result = loop.train(config, values.workdir, progress, task=task)
    except loop.Diverged as error:
        sys.exit(f"error: {error}")
    if jax.process_index() == 0:
        write(values.workdir, result, values.pictures)
