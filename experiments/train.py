"""Trains a classifier, evaluates it and leaves checkpoints, metrics and a report in --workdir.

python -m experiments.train --recipe=digits --workdir=runs/digits
python -m experiments.train --model=resnet50 --dataset=imagenet2012 --workdir=runs/r50 --epochs=90

The same command again goes on where the run stopped.
"""

import sys
from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.reports import training as training_report
from cnn_jax.runtime.progress import progress_bar
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig

from . import app
from .flags import training as training_flags

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, for its checkpoints, results and report.",
    module_name="Output",
)
training_flags.define()


def train(config: TrainConfig, workdir: str) -> loop.Result:
    """Train with a progress bar and write results.json and report.html."""
    with progress_bar(config.batch_size) as progress:
        result = loop.train(config, workdir, progress)
    if jax.process_index() == 0:
        training_report.write_training(workdir, result)
    return result


def main(argv: Sequence[str]) -> None:
    del argv
    if _WORKDIR.value is None:
        raise UsageError("--workdir is missing; name a folder, as in --workdir=runs/digits")
    config = training_flags.config_from_flags(flags.FLAGS)
    try:
        train(config, _WORKDIR.value)
    except loop.Diverged as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
