"""Accuracy under attack of a data set's split: what experiments.evaluate --attack adds."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from cnn_jax import report, trained
from cnn_jax.attacks import loop, registry, robustness
from cnn_jax.data import pipeline
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.report import Html
from cnn_jax.trained import Trained
from experiments import _adversarial_report, _attack_flags


def define() -> None:
    """Define the flags."""
    flags.DEFINE_string(
        "attack",
        None,
        f"Also the accuracy under this attack: {', '.join(registry.ATTACKS)}.",
        module_name="Attack",
    )
    flags.DEFINE_integer(
        "attack_examples",
        None,
        "How many examples are attacked, the first ones; by default all.",
        lower_bound=1,
        module_name="Attack",
    )
    _attack_flags.define_budget()


def under_attack(
    network: Trained, dataset: Dataset, preprocessing: Preprocessing
) -> dict[str, Any]:
    """Return the accuracy on the clean examples and for each budget, under the attack of --attack.

    attack, norm, examples, clean_accuracy, robust_accuracy (at --eps) and curve.
    """
    pixels_of_one = preprocessing.image_size**2 * len(network.mean)
    name = flags.FLAGS.attack
    attack, norm, eps, options = _attack_flags.chosen(name, pixels_of_one)
    epsilons = sorted({eps, *_attack_flags.epsilons(eps, norm, pixels_of_one)})
    images, labels = [], []
    for batch in pipeline.evaluation_batches(dataset, batch_size=128, preprocessing=preprocessing):
        real = batch["weight"] > 0
        images.append(batch["image"][real].astype(np.float32) / 255)
        labels.append(batch["label"][real])
    count = flags.FLAGS.attack_examples
    images, labels = np.concatenate(images)[:count], np.concatenate(labels)[:count]
    logits_of = trained.classifier(network)
    batching = loop.Batching(flags.FLAGS.attack_batch, tuple(jax.local_devices()))
    clean = float((loop.predictions(logits_of, images, batching) == labels).mean())
    accuracies = robustness.accuracy_curve(
        attack,
        logits_of,
        images,
        labels,
        jax.random.key(0),
        epsilons,
        norm=norm,
        batching=batching,
        **options,
    )
    return {
        "attack": name,
        "norm": norm,
        "eps": eps,
        "examples": len(labels),
        "clean_accuracy": clean,
        "robust_accuracy": accuracies[epsilons.index(eps)],
        "curve": {"eps": [0.0, *epsilons], "accuracy": [clean, *accuracies]},
    }


def section(folder: str, result: dict[str, Any]) -> Html:
    """Return the section of the report, and leave attack.png in the folder."""
    figure = _adversarial_report.accuracy_curve({result["attack"]: result["curve"]}, result["norm"])
    png = report.figure_png(figure, Path(folder) / "attack.png")
    numbers = {
        "examples": result["examples"],
        "accuracy": f"{result['clean_accuracy']:.2%}",
        f"{result['norm']} {result['eps']:.4g}": f"{result['robust_accuracy']:.2%}",
    }
    return report.section(
        f"Under attack by {result['attack']}",
        report.metrics(numbers),
        report.figure(png, "Accuracy against the budget; an image once fooled stays so."),
    )
