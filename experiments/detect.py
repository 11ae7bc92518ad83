"""Trains a two-stage detector, measures its average precision and shows what it finds.

python -m experiments.detect --workdir=runs/detect
python -m experiments.detect --workdir=runs/boxes --model=fasterrcnn_resnet10_fpn

Without flags a small Mask R-CNN learns the drawn shapes. The same command again goes on where the
run stopped.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import flags

from cnn_jax import detection_evaluation
from cnn_jax.data import datasets
from cnn_jax.data import detection as data
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import check_task
from cnn_jax.reports import detection as detection_report
from cnn_jax.reports import parts
from cnn_jax.training import config as configs
from cnn_jax.training import detector
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.loop import Diverged
from cnn_jax.workdir import write_results

from . import app
from .flags import training as training_flags

_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs/detect",
    "Folder of the run, for its checkpoints, results and report.",
    module_name="Output",
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 8, "Number of evaluation images to draw objects on.", module_name="Output"
)
_MAX_OBJECTS = flags.DEFINE_integer(
    "max_objects",
    None,
    "Largest number of objects in a training image; by default what coco:FOLDER needs, else 5.",
    module_name="Data",
)
training_flags.define()
flags.FLAGS.set_default("recipe", "maskrcnn_shapes")


def main(argv: Sequence[str]) -> None:
    del argv
    config = training_flags.config_from_flags(flags.FLAGS)
    check_task(config.model, "detection")
    configs.refuse(config, detector.UNUSED, "detectors")
    wanted = _MAX_OBJECTS.value
    if _PICTURES.value < 1 or (wanted is not None and wanted < 1):
        raise UsageError("--pictures and --max_objects are 1 at least")
    name, folder = config.dataset, config.data_dir
    training, held_out = config.train_split, config.eval_split
    if training is None or held_out is None:
        usual = datasets.training_split(name, folder), datasets.evaluation_split(name, folder)
        training, held_out = training or usual[0], held_out or usual[1]
    train_set, eval_set = (data.load(name, split, folder) for split in (training, held_out))
    train_set, eval_set = detector.in_numbers_of_run(_WORKDIR.value, train_set, eval_set)
    config = configs.resolve(config, train_set)
    settings = detector.settings_of(config)
    if settings.mask_layers:
        data.check_masks(train_set)
        data.check_masks(eval_set)
    room = data.room_for(train_set, wanted)
    workdir = app.open_workdir(
        _WORKDIR.value,
        configs.identity(config) | {"max_objects": room},
        growing="steps",
        defaults=configs.identity(TrainConfig()),
    )
    try:
        say = partial(print, file=sys.stderr, flush=True)
        trained = detector.train(config, workdir, train_set, max_objects=room, say=say)
    except Diverged as error:
        sys.exit(f"error: {error}")
    results = {
        "step": trained.step,
        "losses": trained.losses,
        "images_per_second": trained.images_per_second,
        "model": config.model,
        "seed": config.seed,
        "split": held_out,
    }
    write_results(workdir, results)  # whatever becomes of the evaluation
    try:
        measured, examples = detection_evaluation.evaluate(
            detector.create_detector(settings, config.num_classes, train_set),
            trained.variables,
            eval_set,
            batch_size=config.batch_size,
            canvas=config.image_size,
            pictures=_PICTURES.value,
        )
    except Exception as error:  # as it is with any part of a report
        measured, examples = {}, []
        parts.tell("the evaluation", error)
    results |= measured
    write_results(workdir, results)
    detection_report.write(Path(workdir), results, examples, eval_set.class_names)
    if measured:
        print(
            f"{name} {held_out}: {results['images']} images, {detection_report.headline(results)}"
        )


if __name__ == "__main__":
    app.run(main)
