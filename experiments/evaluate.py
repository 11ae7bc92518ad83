"""Evaluates a trained classifier: loss, top-1 and top-5 error, accuracy by class, confusion.

python -m experiments.evaluate --workdir=runs/digits
python -m experiments.evaluate --weights=resnet50.pth --model=resnet50 --dataset=imagenet2012
python -m experiments.evaluate --workdir=runs/digits --attack=fgsm,pgd,apgd --eps=16/255
"""

import dataclasses
import sys
from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax import evaluation
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import check_task
from cnn_jax.reports import attack_evaluation as attack_report
from cnn_jax.reports import training as training_report
from cnn_jax.runtime.progress import bar
from cnn_jax.test_time_augmentation import VIEWS
from cnn_jax.trained import Trained
from cnn_jax.training import loop
from cnn_jax.training import task as tasks
from cnn_jax.workdir import write_results

from . import app
from .flags import attack_evaluation
from .flags import network as network_flags

_NUM_THREADS = flags.DEFINE_integer(
    "num_threads",
    None,
    "Number of threads that read and decode; by default one a core.",
    module_name="Data",
)
_BAD_IMAGES = flags.DEFINE_enum(
    "bad_images",
    "stop",
    ["stop", "skip"],
    "What an image that cannot be decoded does: stop ends the command and names it, skip leaves "
    "it out, names it at the end and counts it.",
    module_name="Data",
)
_TEN_CROP = flags.DEFINE_boolean(
    "ten_crop",
    False,
    "Whether to average the probabilities over ten crops of each image.",
    module_name="Protocol",
)
_VIEWS = flags.DEFINE_enum(
    "views",
    None,
    list(VIEWS),
    "Test-time augmentation: the views of each image over which the probabilities are "
    "averaged; by default as in the run.",
    module_name="Protocol",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the crop in pixels; by default as in the run.",
    module_name="Protocol",
)
_RESIZE = flags.DEFINE_integer(
    "resize",
    None,
    "Shorter side of the image before the crop, in pixels; by default as in the run.",
    module_name="Protocol",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    128,
    "Number of images evaluated at once, which changes no result.",
    module_name="Protocol",
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Number format in which the network computes.",
    module_name="Protocol",
)
network_flags.define()
network_flags.define_dataset()
attack_evaluation.define()


def skipped(dataset: Dataset) -> dict[str, int]:
    """Name the images that --bad_images=skip left out, and return their number for results."""
    if dataset.skipped is None:
        return {}
    for bad in sorted(dataset.skipped):
        print(f"skipped {bad}", file=sys.stderr)
    return {"skipped": len(dataset.skipped)}


def evaluate_task(network: Trained, task: tasks.Task) -> None:
    """Evaluate a network of a registered task as the task does, and write results and page."""
    values, config = flags.FLAGS, network.config
    if config is None:
        raise UsageError(f"a {task.name} network is evaluated as its run says; give its --workdir")
    for name in ("ten_crop", "attack"):
        if values[name].value:
            raise UsageError(f"--{name} is not for {task.name}; leave it out")
    if values.dataset not in (None, config.dataset):
        config = dataclasses.replace(config, train_split=None, eval_split=None)
    given = {
        "dataset": values.dataset,
        "data_dir": values.data_dir,
        "eval_split": values.split,
        "eval_views": _VIEWS.value,
        "eval_image_size": _IMAGE_SIZE.value,
        "eval_resize": _RESIZE.value or _IMAGE_SIZE.value,
        "bad_images": _BAD_IMAGES.value,
        "num_threads": _NUM_THREADS.value,
        "batch_size": _BATCH_SIZE.value,
        "dtype": _DTYPE.value,
        "mean": network.mean,
        "std": network.std,
    }
    config = dataclasses.replace(config, **{k: v for k, v in given.items() if v is not None})
    tasks.check_options(config, task)
    owner = f"the run in {values.workdir}"
    _, dataset = loop.load_datasets(config, task, network.class_names, owner)
    metrics = task.evaluator(network.model, dataset, config, None)(network.variables)
    if jax.process_index() != 0:
        return
    protocol = {"dataset": dataset.name, "split": dataset.split, "dtype": config.dtype}
    training = training_report.read_training(values.workdir)
    results = metrics | {"model": network.model.name, "protocol": protocol} | dict(network.source)
    results |= skipped(dataset)
    write_results(values.workdir, results | {"training": training})
    sections = training_report.training_sections(values.workdir, training) if training else []
    sections += training_report.sections_of(task)(values.workdir, metrics)
    training_report.write_page(values.workdir, sections)
    print(f"{dataset.name} {dataset.split}: {task.headline(metrics)}")


def main(argv: Sequence[str]) -> None:
    del argv
    if _BATCH_SIZE.value < 1:
        raise UsageError(f"--batch_size={_BATCH_SIZE.value} is too small; give 1 at least")
    subject = network_flags.load_network(task=None)
    task = tasks.of_model(subject.model.name)
    check_task(subject.model.name, task.name)
    if task is not tasks.CLASSIFICATION:
        evaluate_task(subject, task)
        return
    config, dataset = subject.config, network_flags.load_dataset(subject)
    if _BAD_IMAGES.value == "skip":
        dataset = dataset._replace(skipped=set())
    name, split = dataset.name, dataset.split
    preprocessing = subject.preprocessing
    if _IMAGE_SIZE.value is not None:
        preprocessing = preprocessing._replace(
            image_size=_IMAGE_SIZE.value, resize=max(_IMAGE_SIZE.value, preprocessing.resize)
        )
    if _RESIZE.value is not None:
        preprocessing = preprocessing._replace(resize=_RESIZE.value)
    views = _VIEWS.value or ("one" if config is None else config.eval_views)
    evaluate = evaluation.create_evaluator(
        subject.model,
        dataset,
        preprocessing,
        batch_size=_BATCH_SIZE.value,
        dtype=_DTYPE.value,
        ten_crop=_TEN_CROP.value,
        num_threads=_NUM_THREADS.value,
        mean=subject.mean,
        std=subject.std,
        views=views,
        loop_blocks=config is not None and config.remat_deep,
        progress=bar("batch"),
    )
    protocol = preprocessing._asdict() | {
        "dataset": name,
        "split": split,
        "crops": 10 if _TEN_CROP.value else 1,
        "views": views,
        "dtype": _DTYPE.value,
    }
    workdir = flags.FLAGS.workdir or f"runs/evaluate_{subject.model.name}"
    if config is None and jax.process_index() == 0:
        asked = {"model": subject.model.name, **protocol, "source": dict(subject.source)}
        workdir = app.open_free_workdir(workdir, asked, named=flags.FLAGS.workdir is not None)
    attacked = None
    if flags.FLAGS.attack is not None:  # first, for its flags may be wrong
        attacked = attack_evaluation.under_attack(subject, dataset, preprocessing)
    metrics = evaluate(subject.variables)
    if jax.process_index() != 0:
        return
    results = metrics | {"model": subject.model.name, "protocol": protocol} | dict(subject.source)
    results |= skipped(dataset)
    if attacked is not None:
        results["under_attack"] = attacked
    training = {} if config is None else training_report.read_training(workdir)
    write_results(workdir, results | ({"training": training} if training else {}))
    sections = training_report.training_sections(workdir, training) if training else []
    sections += training_report.evaluation_sections(workdir, metrics)
    if attacked is not None:
        sections.append(attack_report.section(workdir, attacked))
    training_report.write_page(workdir, sections)
    print(
        f"{name} {split}: {metrics['examples']} examples, "
        f"top-1 error {metrics['top1_error']:.2%}, top-5 error {metrics['top5_error']:.2%}, "
        f"loss {metrics['loss']:.4f}"
    )
    if subject.source.get("averaged"):
        print("of the averaged weights; --raw_weights takes those of the last update")
    if attacked is not None:
        print("\n".join(attack_report.lines(attacked)))
        for doubt in attacked["doubts"]:
            print(f"warning: {doubt}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
