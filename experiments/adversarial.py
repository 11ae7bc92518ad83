"""Breaks a network: images that look the same to us and are another class to it.

python -m experiments.adversarial --workdir=runs/digits --attack=pgd --eps=16/255 --examples=200
python -m experiments.adversarial --workdir=runs/digits --attack=deepfool
python -m experiments.adversarial --workdir=runs/digits --attack=pgd --target=3 --norm=l2 --eps=2
python -m experiments.adversarial --target=koala --eps=4/255   # elephants, and other samples
python -m experiments.adversarial --target=koala,iPod --eps=4/255
python -m experiments.adversarial --model=resnet50 --weights=resnet50.pth --image=elephant.jpg

Leaves the adversarial images (adversarial.npz), the picture of each image, its perturbation and
both classes, and the accuracy against the budget. With several targets, each image is to be taken
for each of them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.attacks import checks, loop, masking, registry, robustness
from cnn_jax.data import sample_photographs
from cnn_jax.errors import UsageError
from cnn_jax.reports import adversarial as adversarial_report

from . import app
from .flags import attacks as attack_flags
from .flags import network as network_flags
from .flags import subject as subjects
from .flags import target as target_flags

_ATTACK = flags.DEFINE_string(
    "attack",
    "pgd",
    f"Attack that makes the images: {', '.join(registry.ATTACKS)}.",
    module_name="Attack",
)
_TARGET = flags.DEFINE_list(
    "target",
    None,
    "Class that the images are to be taken for, by name or number, or several; by default any "
    "wrong one.",
    module_name="Attack",
)
_CURVE = flags.DEFINE_boolean(
    "curve",
    None,
    "Whether to measure the accuracy at further budgets too, for the curve; by default where the "
    "images are examples of a data set, or --epsilons is given.",
    module_name="Attack",
)
subjects.define()
attack_flags.define_budget()


def main(argv: Sequence[str]) -> None:
    del argv
    network = network_flags.load_network()
    pixels_of_one = network.preprocessing.image_size**2 * len(network.mean)
    (attack,), norm, eps, options = attack_flags.chosen([_ATTACK.value], pixels_of_one)
    epsilons = attack_flags.epsilons(eps, norm, pixels_of_one)
    samples = (sample_photographs.ELEPHANTS, *sample_photographs.PHOTOGRAPHS)
    subject = subjects.load("adversarial", samples=samples)
    images, labels, names = subject.pixels, subject.labels, subject.names
    logits_of = trained.classifier(network)
    batching = loop.Batching(flags.FLAGS.attack_batch, tuple(jax.local_devices()))
    key = jax.random.key(flags.FLAGS.seed)
    if labels is None:  # the user's own images: away from what the network sees in them
        labels = loop.predictions(logits_of, images, batching)
    targets, examples = None, np.arange(len(names))
    if _TARGET.value is not None:
        wanted = target_classes(subject.class_names)
        images, labels, targets = (
            np.repeat(images, len(wanted), axis=0),
            np.repeat(labels, len(wanted)),
            np.tile(wanted, len(images)),
        )
        examples = np.repeat(examples, len(wanted))
        names = tuple(name for name in names for _ in wanted)
        if subject.labels is None and len(wanted) == 1:
            checks.check_targets(labels, targets)
        others = _without_target(labels, targets)
        images, labels, targets, examples = (
            each[others] for each in (images, labels, targets, examples)
        )
        names = tuple(names[i] for i in others)

    curve = _CURVE.value
    if curve is None:
        curve = subject.labels is not None or bool(flags.FLAGS.epsilons)
    budget = {"eps": eps} if attack.bounded else {}
    adversarial = robustness.attack_right_ones(
        attack,
        logits_of,
        images,
        labels,
        key,
        targets=targets,
        norm=norm,
        batching=batching,
        **budget,
        **options,
    )
    saved = Path(subject.folder) / "adversarial.npz"
    np.savez_compressed(saved, images=images, adversarial=adversarial, labels=labels)
    with np.load(saved) as arrays:  # the verdict is on what lies in the file
        adversarial = arrays["adversarial"]
    verdict = robustness.judge(logits_of, images, adversarial, labels, targets, batching)
    if attack.bounded:
        checks.assert_within(images, adversarial, eps, norm)
    right = verdict.before == labels
    doubts = []
    if attack.gradient:
        none = masking.without_gradient(logits_of, images[right], labels[right], batching)
        doubts = masking.vanishing(none)
    results = {
        "attack": _ATTACK.value,
        "norm": norm,
        **budget,
        "examples": len(labels),
        "misread_before": int((~right).sum()),
        "clean_accuracy": float(right.mean()),
        "robust_accuracy": float((verdict.after == labels).mean()),
        "doubts": doubts,
        "success": float(verdict.fooled[right].mean()),
        "median_size": {
            name: float(np.median(size[right & verdict.fooled]))
            if (right & verdict.fooled).any()
            else None
            for name, size in verdict.sizes.items()
        },
        "images": [
            {
                "name": names[i],
                "label": subject.class_names[labels[i]],
                "before": subject.class_names[verdict.before[i]],
                "before_probability": float(verdict.probabilities_before[i].max()),
                "after": subject.class_names[verdict.after[i]],
                "after_probability": float(verdict.probabilities_after[i].max()),
                "size": float(verdict.sizes[norm][i]),
            }
            | (
                {}
                if targets is None
                else {"target": subject.class_names[targets[i]], "example": int(examples[i])}
            )
            for i in range(len(labels))
        ],
    }
    if targets is not None:
        results["target"] = ", ".join(subject.class_names[i] for i in dict.fromkeys(targets))
    elif curve:
        correct = robustness.correct_under_attack(
            attack,
            logits_of,
            images,
            labels,
            key,
            epsilons,
            norm=norm,
            batching=batching,
            **options,
        )
        results["curve"] = {
            "eps": [0.0, *epsilons],
            "accuracy": [results["clean_accuracy"], *correct.mean(axis=1)],
        }
    adversarial_report.write(
        subject.folder, network.model.name, images, adversarial, verdict, labels, results
    )
    if results["misread_before"]:
        print(f"{results['misread_before']} images are misread as they are; they are left so")
    aim = f" as {results['target']}" if targets is not None else ""
    print(
        f"{_ATTACK.value}, {norm}{f', eps {eps:.4g}' if attack.bounded else ''}: "
        f"{results['examples']} images, accuracy {results['clean_accuracy']:.1%} -> "
        f"{results['robust_accuracy']:.1%}, {results['success']:.1%} fooled{aim}, "
        f"median size {results['median_size'][norm] or 0:.4g}"
    )
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)


def target_classes(class_names: Sequence[str]) -> list[int]:
    """Return the numbers of the classes of --target.

    Raises:
      UsageError: one that is not there, or none.
    """
    if not _TARGET.value:
        raise UsageError("--target names no class; write koala, or koala,iPod")
    numbers = (target_flags.class_number(text, class_names) for text in _TARGET.value)
    return list(dict.fromkeys(numbers))


def _without_target(labels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the numbers of the pairs whose image is not of the target class."""
    others = np.flatnonzero(labels != targets)
    if not len(others):
        raise UsageError(f"all images are of class {targets[0]}, the target; give another --target")
    if len(others) < len(labels):
        print(f"{len(labels) - len(others)} images are of their target's class and left out")
    return others


if __name__ == "__main__":
    app.run(main)
