"""Trains a classifier, evaluates it and leaves checkpoints, metrics and a report in --workdir.

python -m experiments.train --recipe=digits --workdir=runs/digits
python -m experiments.train --model=resnet50 --dataset=imagenet2012 --workdir=runs/r50 --epochs=90

The same command again goes on where the run stopped. Networks of a task that a --plugin registers
are trained for that task.
"""

from collections.abc import Sequence
from functools import partial

from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.training import task as tasks
from cnn_jax.training.loop import Result

from . import app
from .flags import task_training
from .flags import training as training_flags

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, for its checkpoints, results and report.",
    module_name="Output",
)
training_flags.define()


def _write(workdir: str, result: Result, task: tasks.Task) -> None:
    from cnn_jax.reports import training as training_report  # draws, which the start need not wait

    training_report.write_training(workdir, result, task=task)


def main(argv: Sequence[str]) -> None:
    del argv
    if _WORKDIR.value is None:
        raise UsageError("--workdir is missing; name a folder, as in --workdir=runs/digits")
    config = training_flags.config_from_flags(flags.FLAGS)
    task = tasks.of_model(config.model)
    task_training.train(config, _WORKDIR.value, task, partial(_write, task=task))


if __name__ == "__main__":
    app.run(main)
