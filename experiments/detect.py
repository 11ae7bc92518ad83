"""Trains a two-stage detector, measures its average precision and shows what it finds.

python -m experiments.detect --workdir=runs/detect
python -m experiments.detect --workdir=runs/boxes --model=fasterrcnn_resnet10_fpn

Without flags a small Mask R-CNN learns the drawn shapes. The same command again goes on where the
run stopped.
"""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import flags

from cnn_jax import ops
from cnn_jax.data import datasets
from cnn_jax.data import detection as data
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import check_task
from cnn_jax.reports import detection as detection_report
from cnn_jax.tasks import average_precision as ap
from cnn_jax.tasks.detection_errors import count_kinds
from cnn_jax.training import config as configs
from cnn_jax.training import detector
from cnn_jax.training.loop import Diverged
from cnn_jax.workdir import write_results
from experiments import app
from experiments.flags import training as training_flags

_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs/detect",
    "Folder of this run: checkpoints, results, report.",
    module_name="Output",
)
_PICTURES = flags.DEFINE_integer("pictures", 8, "Images to draw objects on.", module_name="Output")
_MAX_OBJECTS = flags.DEFINE_integer(
    "max_objects", 5, "Room for this many objects an image.", module_name="Data"
)
training_flags.define()
flags.FLAGS.set_default("recipe", "maskrcnn_shapes")


def regions_of(example, found, with_masks):
    """Return (image, true objects, found objects) of one example, its masks on the canvas."""
    there, seen = found.valid, example["valid"]
    truth = {
        "boxes": example["boxes"][seen],
        "labels": example["labels"][seen],
        "masks": None,
    }
    ours = {
        "boxes": found.boxes[there],
        "labels": found.labels[there],
        "scores": found.scores[there],
        "masks": None,
    }
    if with_masks:
        numbers = np.arange(1, len(seen) + 1)[seen]
        truth["masks"] = example["instances"] == numbers[:, None, None]
        paste = jax.jit(ops.paste_masks, static_argnums=(2, 3))
        pasted = paste(found.masks, found.boxes, *example["image"].shape[:2])
        ours["masks"] = np.asarray(pasted > 0.5)[there]
    return {"image": example["image"], "truth": truth, "found": ours}, example["difficult"][seen]


def evaluate(config, dataset, variables, max_objects):
    """Return results, and the examples with what was found, of a whole split."""
    settings = detector.settings_of(config)
    with_masks = settings.mask_layers > 0
    detect = detector.create_detector(settings, config.num_classes, dataset)
    batches = data.evaluation_batches(
        dataset, batch_size=config.batch_size, canvas=config.image_size, max_objects=max_objects
    )
    examples, difficult, exact = [], [], True
    for example, found in detector.detect_all(detect, variables, batches):
        shown, hard = regions_of(example, found, with_masks)
        examples.append(shown)
        difficult.append(hard)
        exact = exact and bool(found.exact)

    batch = {
        "image": np.stack([each["image"] for each in examples[: config.batch_size]]),
        "size": np.full((min(len(examples), config.batch_size), 2), config.image_size, np.int32),
    }
    jax.block_until_ready(detect(variables, batch))
    start = time.perf_counter()
    jax.block_until_ready(detect(variables, batch))
    results = {
        "images": len(examples),
        "exact": exact,
        "seconds_per_image": (time.perf_counter() - start) / len(batch["image"]),
    }
    for kind, iou in (("boxes", ap.box_iou), ("masks", ap.mask_iou))[: 1 + with_masks]:
        found = [
            ap.Found(each["found"][kind], each["found"]["scores"], each["found"]["labels"])
            for each in examples
        ]
        objects = [
            ap.Objects(each["truth"][kind], each["truth"]["labels"], hard)
            for each, hard in zip(examples, difficult, strict=True)
        ]
        name = "box" if kind == "boxes" else "mask"
        measure = partial(ap.mean_average_precision, found, objects, dataset.class_names, iou=iou)
        results[f"{name}_ap50"] = measure()
        results[f"{name}_ap50_11_point"] = measure(definition=ap.ELEVEN_POINTS)["map"]
        if kind == "boxes":
            results["error_kinds"] = count_kinds(found, objects)
        size = (config.image_size, config.image_size)
        results[f"{name}_coco"] = ap.coco_metrics(found, objects, size, masks=kind == "masks")
    return results, examples


def main(argv: Sequence[str]) -> None:
    del argv
    config = training_flags.config_from_flags(flags.FLAGS)
    check_task(config.model, "detection")
    configs.refuse(config, detector.UNUSED, "detectors")
    if _PICTURES.value < 1 or _MAX_OBJECTS.value < 1:
        raise UsageError("--pictures and --max_objects are 1 at least")
    name, folder = config.dataset, config.data_dir
    training = config.train_split or datasets.training_split(name, folder)
    held_out = config.eval_split or datasets.evaluation_split(name, folder)
    train_set, eval_set = (data.load(name, split, folder) for split in (training, held_out))
    train_set, eval_set = detector.in_numbers_of_run(_WORKDIR.value, train_set, eval_set)
    config = configs.resolve(config, train_set)
    if detector.settings_of(config).mask_layers and "instance_mask" not in train_set.source[0]:
        raise UsageError(f"{name} has no instance masks; take --model=fasterrcnn_resnet10_fpn")
    workdir = app.open_workdir(
        _WORKDIR.value, configs.identity(config) | {"max_objects": _MAX_OBJECTS.value}
    )
    try:
        say = partial(print, file=sys.stderr, flush=True)
        trained = detector.train(
            config, workdir, train_set, max_objects=_MAX_OBJECTS.value, say=say
        )
    except Diverged as error:
        sys.exit(f"error: {error}")
    results, examples = evaluate(config, eval_set, trained.variables, _MAX_OBJECTS.value)
    results |= {
        "step": trained.step,
        "losses": trained.losses,
        "images_per_second": trained.images_per_second,
        "model": config.model,
        "seed": config.seed,
        "split": held_out,
    }
    write_results(workdir, results)
    for example in examples:
        sure = example["found"]["scores"] >= 0.5
        example["found"] = {
            key: None if value is None else value[sure] for key, value in example["found"].items()
        }
    shown = detection_report.pictures(examples[: _PICTURES.value], eval_set.class_names)
    detection_report.write(Path(workdir), results, shown)
    line = ", ".join(
        f"{kind} AP50 {results[f'{kind}_ap50']['map']:.3f}"
        for kind in ("box", "mask")
        if f"{kind}_ap50" in results
    )
    print(f"{name} {held_out}: {results['images']} images, {line}")
    print(f"results: {workdir}/results.json  report: {workdir}/report.html")


if __name__ == "__main__":
    app.run(main)
