"""Evaluates a trained classifier: loss, top-1 and top-5 error, accuracy by class, confusion.

python -m experiments.evaluate --workdir=runs/digits
python -m experiments.evaluate --weights=resnet50.pth --model=resnet50 --dataset=imagenet2012
python -m experiments.evaluate --workdir=runs/digits --attack=fgsm,pgd,apgd --eps=16/255
"""

import sys
from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax import evaluation
from cnn_jax.errors import UsageError
from cnn_jax.reports import attack_evaluation as attack_report
from cnn_jax.reports import training as training_report
from cnn_jax.runtime.progress import bar
from cnn_jax.views import VIEWS
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
    "Test-time averaging: the views of each image over which the probabilities are "
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


def main(argv: Sequence[str]) -> None:
    del argv
    if _BATCH_SIZE.value < 1:
        raise UsageError(f"--batch_size={_BATCH_SIZE.value} is too small; give 1 at least")
    subject = network_flags.load_network()
    config, dataset = subject.config, network_flags.load_dataset(subject)
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
        progress=bar("batch"),
    )
    attacked = None
    if flags.FLAGS.attack is not None:  # first, for its flags may be wrong
        attacked = attack_evaluation.under_attack(subject, dataset, preprocessing)
    metrics = evaluate(subject.variables)
    if jax.process_index() != 0:
        return
    protocol = preprocessing._asdict() | {
        "dataset": name,
        "split": split,
        "crops": 10 if _TEN_CROP.value else 1,
        "views": views,
        "dtype": _DTYPE.value,
    }
    results = metrics | {"model": subject.model.name, "protocol": protocol} | dict(subject.source)
    if attacked is not None:
        results["under_attack"] = attacked
    workdir = flags.FLAGS.workdir or f"runs/evaluate_{subject.model.name}"
    if config is None:
        app.open_workdir(workdir, {"model": subject.model.name, **protocol})
        training = {}
    else:
        training = training_report.read_training(workdir)
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
