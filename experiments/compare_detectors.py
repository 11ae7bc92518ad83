"""Trains R-CNN, Fast R-CNN and Faster R-CNN and compares them on the same images.

python -m experiments.compare_detectors --workdir=runs/compare
python -m experiments.compare_detectors --workdir=runs/compare --faster=runs/detect

One table of average precision and seconds an image, with and without the proposals that the first
two need. These are selective search's, of OpenCV, which comes with the set-up (and as the wheel's
extra proposals). The same command again goes on where the run stopped; --faster takes a detector
that experiments.detect has trained.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from jaxtyping import Float, PyTree

from cnn_jax import detection_evaluation, trained
from cnn_jax.data import classes, datasets, proposals
from cnn_jax.data import detection as data
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.reports import detector_comparison as comparison_report
from cnn_jax.reports import parts
from cnn_jax.runtime.progress import progress_bar
from cnn_jax.tasks import average_precision as ap
from cnn_jax.training import config as configs
from cnn_jax.training import detector, loop, rcnn
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.recipes import recipe
from cnn_jax.training.task import DETECTION, given_proposals, unmeasured
from cnn_jax.workdir import write_results

from . import app

_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs/compare",
    "Folder of the runs, for their checkpoints, proposals, results and the report.",
    module_name="Output",
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 4, "Number of images to draw boxes on.", module_name="Output"
)
_DATASET = flags.DEFINE_string(
    "dataset", "shapes", "Data set whose images have objects with boxes.", module_name="Data"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the TFDS data sets; by default ~/tensorflow_datasets.",
    module_name="Data",
)
_TRAIN_SPLIT = flags.DEFINE_string(
    "train_split", None, "Split to train on; by default the training split.", module_name="Data"
)
_EVAL_SPLIT = flags.DEFINE_string(
    "eval_split", None, "Split to compare the detectors on; by default test.", module_name="Data"
)
_MAX_OBJECTS = flags.DEFINE_integer(
    "max_objects",
    None,
    "Largest number of objects in a training image; by default what coco:FOLDER needs, else 5.",
    module_name="Data",
)
_MAX_PROPOSALS = flags.DEFINE_integer(
    "max_proposals", 200, "Largest number of proposals for an image.", module_name="Data"
)
_FASTER = flags.DEFINE_string(
    "faster",
    None,
    "Folder of a finished Faster R-CNN run of the command detect, taken instead of training one.",
    module_name="Training",
)
_STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Number of updates of each network; by default its recipe's.",
    module_name="Training",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the images in pixels; by default the data set's.",
    module_name="Training",
)
_FITTED_ON = flags.DEFINE_integer(
    "fitted_on",
    1000,
    "Number of training images on which R-CNN's support vector machines and box "
    "regressions are fitted.",
    module_name="Training",
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of all random numbers of the runs.", module_name="Training"
)

BATCH = 8  # images


class Detector(NamedTuple):
    """One of those compared.  detect(learnt, batch) -> Detections."""

    title: str
    detect: Callable[..., Any]
    learnt: Any
    proposed: bool  # whether its regions come from outside
    training: dict[str, Any]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def room(train_set: Dataset) -> int:
    return data.room_for(train_set, _MAX_OBJECTS.value)


def config_of(name: str, train_set: Dataset) -> TrainConfig:
    """Return the recipe's configuration, resolved, as the flags change it."""
    options = recipe(name) | {
        "dataset": _DATASET.value,
        "data_dir": _DATA_DIR.value,
        "train_split": train_set.split,
        "max_objects": _MAX_OBJECTS.value,
        "seed": _SEED.value,
    }
    if _STEPS.value is not None:
        options |= {"epochs": None, "warmup_epochs": None, "steps": _STEPS.value}
    if _IMAGE_SIZE.value is not None:
        options["image_size"] = _IMAGE_SIZE.value
    return configs.resolve(TrainConfig(**options), train_set)


def train(
    name: str, workdir: Path, splits: Sequence[Dataset], boxes: Sequence[np.ndarray] | None
) -> tuple[TrainConfig, PyTree]:
    """Train what a recipe says in the workdir's folder of that name; return its variables too.

    Args:
      splits: what to train on, and what to evaluate on.
    """
    config, folder = config_of(name, splits[0]), workdir / name
    say(f"{config.model}: {config.steps} steps")
    if boxes is None:
        task = DETECTION._replace(evaluator=unmeasured)
    else:
        task = given_proposals(boxes, _MAX_PROPOSALS.value)
    task = task._replace(
        load=lambda name, split, data_dir: next(each for each in splits if each.split == split),
        splits=lambda name, data_dir: tuple(each.split for each in splits),
    )
    with progress_bar(config.batch_size) as progress:
        result = loop.train(config, folder, progress, task=task)
    if result.step < config.steps:
        sys.exit()  # told to stop
    return config, trained.from_workdir(folder, task="detection").variables


def train_rcnn(workdir: Path, splits: Sequence[Dataset], boxes: Sequence[np.ndarray]) -> Detector:
    """Finetune the network, then fit the machines and the regressions to its features."""
    train_set = splits[0]
    config, variables = train("rcnn_shapes", workdir, splits, boxes)
    settings, classes = detector.settings_of(config), config.num_classes
    file = workdir / "rcnn_shapes" / "fitted.npz"
    if not file.exists():
        say("R-CNN: support vector machines and regressions of boxes")
        batches = evaluation_batches(train_set, config.image_size, boxes, room(train_set))
        batches = islice(batches, math.ceil(_FITTED_ON.value / BATCH))
        rcnn.save(file, rcnn.fit(variables, batches, classes, settings, train_set))
    detect = rcnn.create_detector(settings, classes, train_set)
    learnt = (variables, rcnn.load(file))
    return Detector("R-CNN", detect, learnt, True, summary(config, workdir / "rcnn_shapes"))


def trained_whole(
    title: str,
    name: str,
    workdir: Path,
    splits: Sequence[Dataset],
    boxes: Sequence[np.ndarray] | None,
) -> Detector:
    """Train a detector that needs nothing fitted after it."""
    config, variables = train(name, workdir, splits, boxes)
    settings = detector.settings_of(config)
    detect = detector.create_detector(settings, config.num_classes, splits[0])
    proposed = boxes is not None
    return Detector(title, detect, variables, proposed, summary(config, workdir / name))


def summary(config: TrainConfig, folder: Path) -> dict[str, Any]:
    losses = loop.last_metrics(folder)
    return {"model": config.model, "step": config.steps, "losses": losses}


def evaluation_batches(
    dataset: Dataset,
    canvas: int,
    boxes: Sequence[Float[np.ndarray, "_p 4"]] | None,
    max_objects: int | None = None,
) -> Iterator[data.Batch]:
    return data.evaluation_batches(
        dataset,
        batch_size=BATCH,
        canvas=canvas,
        max_objects=max_objects,
        proposals=boxes,
        max_proposals=_MAX_PROPOSALS.value,
    )


def reused_faster(workdir: str, dataset: Dataset, canvas: int) -> Detector:
    """Return the detector of a run of experiments.detect, its boxes alone."""
    network = trained.from_workdir(workdir, task="detection")
    settings = detector.settings_of(network.config)
    if not settings.anchor_sizes:
        raise UsageError(f"--faster={workdir} proposes no regions; give a Faster or Mask R-CNN's")
    classes.matched(dataset, network.class_names, f"--faster={workdir}", whole=True, first=1)
    if (network.class_names, network.config.image_size) != (dataset.class_names, canvas):
        raise UsageError(f"--faster={workdir} was trained on other classes or another image size")
    detect = detector.create_detector(
        settings._replace(mask_layers=0), network.model.num_classes, dataset
    )
    training = {"model": network.config.model, "step": network.source["step"], "losses": None}
    return Detector("Faster R-CNN", detect, network.variables, False, training)


def evaluate(
    one: Detector, dataset: Dataset, canvas: int, boxes: Sequence[np.ndarray]
) -> tuple[dict[str, Any], list[ap.Found]]:
    """Return AP50 and seconds an image, and what was found in the images to draw, on the canvas."""
    settings = {"batch_size": BATCH, "canvas": canvas}
    if one.proposed:
        settings |= {"proposals": boxes, "max_proposals": _MAX_PROPOSALS.value}
    given = (one.detect, one.learnt, dataset)
    measured = detection_evaluation.evaluate(*given, **settings)
    shown = detection_evaluation.first_examples(*given, **settings, count=_PICTURES.value)
    found = [own["found"] for own in shown]
    results = {
        "ap50": measured["box_ap50"]["map"],
        "ap50_per_class": measured["box_ap50"]["per_class"],
        "seconds_per_image": measured["seconds_per_image"],
    }
    return results, [ap.Found(own["boxes"], own["scores"], own["labels"]) for own in found]


def example_of(dataset: Dataset, canvas: int, index: int) -> dict[str, np.ndarray]:
    """Return an example with all of its objects."""
    return data.read(dataset, len(dataset.source[index]["objects"]["label"]), canvas, index)


def search_results(
    dataset: Dataset, canvas: int, boxes: Sequence[Float[np.ndarray, "_p 4"]]
) -> dict[str, Any]:
    """Return how many proposals there are, what part of the objects they hold, and their time."""
    recalled = []
    for i, own in enumerate(boxes):
        example = example_of(dataset, canvas, i)
        objects = example["boxes"][example["valid"] & ~example["difficult"]]
        overlaps = ap.box_iou(own[: _MAX_PROPOSALS.value], objects)
        recalled += list(overlaps.max(0, initial=0) >= 0.5)
    images = [example_of(dataset, canvas, i)["image"] for i in range(min(BATCH, len(boxes)))]
    start = time.perf_counter()
    for image in images:
        proposals.selective_search(image)
    return {
        "images": len(boxes),
        "proposals_per_image": float(np.mean([len(own) for own in boxes])),
        "cut_off_at": _MAX_PROPOSALS.value,
        "recall_at_50": float(np.mean(recalled)) if recalled else None,
        "seconds_per_image": (time.perf_counter() - start) / len(images),
    }


def main(argv: Sequence[str]) -> None:
    del argv
    for name in ("pictures", "max_objects", "max_proposals", "fitted_on", "steps"):
        value = flags.FLAGS[name].value
        if value is not None and value < 1:
            raise UsageError(f"--{name}={value} is too few; give 1 at least")
    name, folder = _DATASET.value, _DATA_DIR.value
    train_set, eval_set = (
        data.load(name, split, folder)
        for split in (
            _TRAIN_SPLIT.value or datasets.training_split(name, folder),
            _EVAL_SPLIT.value or datasets.evaluation_split(name, folder),
        )
    )
    eval_set = classes.matched(eval_set, train_set.class_names, "the training split", first=1)
    data.room_for(train_set, _MAX_OBJECTS.value)  # before anything is written
    canvas = config_of("fastrcnn_shapes", train_set).image_size
    faster = reused_faster(_FASTER.value, eval_set, canvas) if _FASTER.value else None
    workdir = app.open_free_workdir(
        _WORKDIR.value, identity(train_set, eval_set), named=_WORKDIR.present
    )
    search = partial(proposals.of_split, canvas=canvas, say=say)
    train_boxes, eval_boxes = (
        search(each, folder=workdir / "proposals" / each.split) for each in (train_set, eval_set)
    )
    try:
        splits = (train_set, eval_set)
        compared = [
            train_rcnn(workdir, splits, train_boxes),
            trained_whole("Fast R-CNN", "fastrcnn_shapes", workdir, splits, train_boxes),
        ]
        if faster is None:
            faster = trained_whole("Faster R-CNN", "fasterrcnn_shapes", workdir, splits, None)
    except loop.Diverged as error:
        sys.exit(f"error: {error}")

    detectors = (*compared, faster)
    results = {
        "split": eval_set.split,
        "images": len(eval_boxes),
        "detectors": {one.title: dict(one.training) for one in detectors},
    }
    write_results(workdir, results)  # whatever becomes of the rest
    found = {}
    try:
        results["proposals"] = search_results(eval_set, canvas, eval_boxes)
        outside = results["proposals"]["seconds_per_image"]
    except Exception as error:  # as it is with any part of a report
        parts.tell("measuring selective search", error)
        outside = None
    for one in detectors:
        say(f"{one.title}: {len(eval_boxes)} images")
        try:
            own, found[one.title] = evaluate(one, eval_set, canvas, eval_boxes)
        except Exception as error:
            parts.tell(f"evaluating {one.title}", error)
            continue
        needed = outside if one.proposed else 0.0
        own["seconds_per_image_with_proposals"] = (
            None if needed is None else own["seconds_per_image"] + needed
        )
        results["detectors"][one.title] = own | results["detectors"][one.title]
    write_results(workdir, results)
    shown = range(min(_PICTURES.value, len(eval_boxes)))
    try:
        examples = [example_of(eval_set, canvas, i) for i in shown]
    except Exception as error:
        examples = []
        parts.tell("reading the images to draw", error)
    comparison_report.write(workdir, results, examples, found, eval_set.class_names)
    for title, own in results["detectors"].items():
        if "ap50" in own:
            print(f"{title}: {comparison_report.headline(own)}")


def identity(train_set: Dataset, eval_set: Dataset) -> dict[str, Any]:
    """Return what makes this comparison this comparison."""
    names = ("dataset", "max_proposals", "fitted_on", "steps", "image_size")
    names += ("seed", "faster")
    given = {name: flags.FLAGS[name].value for name in names}
    given["max_objects"] = room(train_set)
    return given | {"train_split": train_set.split, "eval_split": eval_set.split}


if __name__ == "__main__":
    app.run(main)
