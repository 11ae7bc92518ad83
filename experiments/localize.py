"""Trains a network that names an image's object and bounds it, and reports ILSVRC's errors.

python -m experiments.localize --workdir=runs/localize
python -m experiments.localize --workdir=runs/agnostic \
    --model_options='features=16, stage_sizes=(1, 1, 1, 1), class_specific=False'

Without flags a small residual network learns the drawn shapes. The same command again goes on where
the run stopped.
"""

from collections.abc import Sequence

from cnn_jax.reports import localization as localization_report
from cnn_jax.training.task import LOCALIZATION

from . import app
from .flags import task_training

task_training.define("runs/localize", "localizer_shapes", pictures=24, shown="boxes on")


def main(argv: Sequence[str]) -> None:
    del argv
    task_training.run(LOCALIZATION, localization_report.write)


if __name__ == "__main__":
    app.run(main)
