"""Trains a network that labels every pixel, evaluates it and shows its masks over the images.

python -m experiments.segment --workdir=runs/segment
python -m experiments.segment --workdir=runs/fcn --model=fcn8s_vgg16 --model_options=
python -m experiments.segment --workdir=runs/voc --recipe=deeplabv3_voc --dataset=voc:VOC2012

Without flags a U-Net learns the drawn shapes. The same command again goes on where the run stopped.
"""

import sys
from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.training import loop
from cnn_jax.training.task import SEGMENTATION
from experiments import _segment_report, _train_flags, app
from experiments._progress import progress_bar

_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs/segment",
    "Folder of this run: checkpoints, results, report.",
    module_name="Output",
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 12, "Images of the evaluation split to show masks of.", module_name="Output"
)
_train_flags.define()
flags.FLAGS.set_default("recipe", "unet_shapes")


def main(argv: Sequence[str]) -> None:
    del argv
    if _PICTURES.value < 1:
        raise UsageError(f"--pictures={_PICTURES.value} is too few; give 1 at least")
    config, workdir = _train_flags.config_from_flags(flags.FLAGS), _WORKDIR.value
    try:
        with progress_bar(config.batch_size) as progress:
            result = loop.train(config, workdir, progress, task=SEGMENTATION)
    except loop.Diverged as error:
        sys.exit(f"error: {error}")
    if jax.process_index() == 0:
        _segment_report.write(workdir, result, _PICTURES.value)


if __name__ == "__main__":
    app.run(main)
