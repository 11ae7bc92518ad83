"""Trains a two-stage detector, measures its average precision and shows what it finds.

python -m experiments.detect --workdir=runs/detect
python -m experiments.detect --workdir=runs/boxes --model=fasterrcnn_resnet10_fpn --eval_every=250

Without flags a small Mask R-CNN learns the drawn shapes. The same command again goes on where the
run stopped.
"""

from collections.abc import Sequence

from cnn_jax.reports import detection as detection_report
from cnn_jax.training.task import DETECTION

from . import app
from .flags import task_training

task_training.define("runs/detect", "maskrcnn_shapes", pictures=8, shown="objects on")


def main(argv: Sequence[str]) -> None:
    del argv
    task_training.run(DETECTION, detection_report.write)


if __name__ == "__main__":
    app.run(main)
