"""Trains a network that names an image's object and bounds it, and reports ILSVRC's errors.

python -m experiments.localize --workdir=runs/localize
python -m experiments.localize --workdir=runs/agnostic \
    --model_options='features=16, stage_sizes=(1, 1, 1, 1), class_specific=False'

Without flags a small residual network learns the drawn shapes. The same command again goes on where
the run stopped.
"""

import sys
from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.training import loop
from cnn_jax.training.task import LOCALIZATION
from experiments import _localize_report, _train_flags, app
from experiments._progress import progress_bar

_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs/localize",
    "Folder of this run: checkpoints, results, report.",
    module_name="Output",
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 24, "Images of the evaluation split to show boxes on.", module_name="Output"
)
_train_flags.define()
flags.FLAGS.set_default("recipe", "localizer_shapes")


def main(argv: Sequence[str]) -> None:
    del argv
    if _PICTURES.value < 1:
        raise UsageError(f"--pictures={_PICTURES.value} is too few; give 1 at least")
    config, workdir = _train_flags.config_from_flags(flags.FLAGS), _WORKDIR.value
    try:
        with progress_bar(config.batch_size) as progress:
            result = loop.train(config, workdir, progress, task=LOCALIZATION)
    except loop.Diverged as error:
        sys.exit(f"error: {error}")
    if jax.process_index() == 0:
        _localize_report.write(workdir, result, _PICTURES.value)


if __name__ == "__main__":
    app.run(main)
