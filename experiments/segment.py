"""Trains a network that labels every pixel, evaluates it and shows its masks over the images.

python -m experiments.segment --workdir=runs/segment
python -m experiments.segment --workdir=runs/fcn --model=fcn8s_vgg16 --model_options=
python -m experiments.segment --workdir=runs/voc --recipe=deeplabv3_voc --dataset=voc:VOC2012

Without flags a U-Net learns the drawn shapes. The same command again goes on where the run stopped.
"""

from collections.abc import Sequence

from cnn_jax.reports import segmentation as segmentation_report
from cnn_jax.training.task import SEGMENTATION

from . import app
from .flags import task_training

task_training.define("runs/segment", "unet_shapes", pictures=12, shown="masks of")


def main(argv: Sequence[str]) -> None:
    del argv
    task_training.run(SEGMENTATION, segmentation_report.write)


if __name__ == "__main__":
    app.run(main)
