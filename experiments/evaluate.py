"""Evaluates a trained classifier: loss, top-1 and top-5 error, accuracy by class, confusion.

python -m experiments.evaluate --workdir=runs/digits
python -m experiments.evaluate --weights=resnet50.pth --model=resnet50 --dataset=imagenet2012
python -m experiments.evaluate --workdir=runs/digits --attack=pgd --eps=16/255
"""

from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax import evaluation, trained
from cnn_jax.data import datasets
from cnn_jax.errors import UsageError
from cnn_jax.trained import Trained
from cnn_jax.workdir import open_workdir, write_results
from experiments import _attack_evaluation, _run_report, app
from experiments._progress import batches_bar

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of a training run; with --weights, of the results.", module_name="What"
)
_STEP = flags.DEFINE_integer(
    "step", None, "Checkpoint to evaluate; by default the newest intact one.", module_name="What"
)
_MODEL = flags.DEFINE_string("model", None, "Model that --weights are of.", module_name="What")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Published weights, .safetensors or .pth.", module_name="What"
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "Data set; by default the one of the run.", module_name="Data"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TFDS data sets lie; by default as in the run.", module_name="Data"
)
_SPLIT = flags.DEFINE_string(
    "split", None, "Split, TFDS slices allowed; by default that of the run.", module_name="Data"
)
_NUM_THREADS = flags.DEFINE_integer(
    "num_threads", None, "Threads that read; by default one a core.", module_name="Data"
)
_TEN_CROP = flags.DEFINE_boolean(
    "ten_crop", False, "Average ten crops of each image.", module_name="Protocol"
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
    "Shorter side before the crop; by default as in the run.",
    module_name="Protocol",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "Images at a time; changes no result.", module_name="Protocol"
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Dtype of the computation.", module_name="Protocol"
)
_attack_evaluation.define()


def load_subject() -> tuple[Trained, str, str | None]:
    """Return the network, the data set's name and where data sets lie."""
    if _WEIGHTS.value is None:
        if _WORKDIR.value is None:
            raise UsageError("nothing to evaluate; give --workdir, or --model with --weights")
        if _MODEL.value is not None:
            raise UsageError("--model goes with --weights; a run knows its own model")
        subject = trained.from_workdir(_WORKDIR.value, _STEP.value)
        return (
            subject,
            _DATASET.value or subject.config.dataset,
            _DATA_DIR.value or subject.config.data_dir,
        )
    for flag in (_MODEL, _DATASET):
        if flag.value is None:
            raise UsageError(f"--weights needs --{flag.name} too")
    return trained.from_weights(_MODEL.value, _WEIGHTS.value), _DATASET.value, _DATA_DIR.value


def main(argv: Sequence[str]) -> None:
    del argv
    if _BATCH_SIZE.value < 1:
        raise UsageError(f"--batch_size={_BATCH_SIZE.value} is too small; give 1 at least")
    subject, name, data_dir = load_subject()
    config = subject.config
    own = config is not None and name == config.dataset
    split = _SPLIT.value or (own and config.eval_split) or datasets.evaluation_split(name, data_dir)
    dataset = datasets.load(name, split, data_dir)
    if dataset.num_classes > subject.model.num_classes:
        raise UsageError(
            f"{name} has {dataset.num_classes} classes, the network tells "
            f"{subject.model.num_classes} apart; evaluate on what it was trained for"
        )
    if dataset.image_shape[-1] != len(subject.mean):
        raise UsageError(
            f"{name} has {dataset.image_shape[-1]} channels, the network takes {len(subject.mean)}"
        )
    preprocessing = subject.preprocessing
    if _IMAGE_SIZE.value is not None:
        preprocessing = preprocessing._replace(
            image_size=_IMAGE_SIZE.value, resize=max(_IMAGE_SIZE.value, preprocessing.resize)
        )
    if _RESIZE.value is not None:
        preprocessing = preprocessing._replace(resize=_RESIZE.value)
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
        progress=batches_bar,
    )
    metrics = evaluate(subject.variables)
    attacked = None
    if flags.FLAGS.attack is not None:
        attacked = _attack_evaluation.under_attack(subject, dataset, preprocessing)
    if jax.process_index() != 0:
        return
    protocol = preprocessing._asdict() | {
        "dataset": name,
        "split": split,
        "crops": 10 if _TEN_CROP.value else 1,
        "dtype": _DTYPE.value,
    }
    results = metrics | {"model": subject.model.name, "protocol": protocol} | dict(subject.source)
    if attacked is not None:
        results["under_attack"] = attacked
    workdir = _WORKDIR.value or f"runs/evaluate_{subject.model.name}"
    if config is None:
        open_workdir(workdir, {"model": subject.model.name, **protocol})
        training = {}
    else:
        training = _run_report.read_training(workdir)
    write_results(workdir, results | ({"training": training} if training else {}))
    sections = _run_report.training_sections(workdir, training) if training else []
    sections += _run_report.evaluation_sections(workdir, metrics)
    if attacked is not None:
        sections.append(_attack_evaluation.section(workdir, attacked))
    _run_report.write_page(workdir, sections)
    print(
        f"{name} {split}: {metrics['examples']} examples, "
        f"top-1 error {metrics['top1_error']:.2%}, top-5 error {metrics['top5_error']:.2%}, "
        f"loss {metrics['loss']:.4f}"
    )
    if attacked is not None:
        print(
            f"{attacked['attack']}, {attacked['norm']} eps {attacked['eps']:.4g}: accuracy "
            f"{attacked['clean_accuracy']:.2%} -> {attacked['robust_accuracy']:.2%} "
            f"on {attacked['examples']} examples"
        )
    print(f"results: {workdir}/results.json  report: {workdir}/report.html")


if __name__ == "__main__":
    app.run(main)
