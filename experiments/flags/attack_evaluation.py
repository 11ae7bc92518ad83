"""Accuracy under attack of a data set's split: what experiments.evaluate --attack adds."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import Bool

from cnn_jax import trained
from cnn_jax.attacks import loop, masking, registry, robustness
from cnn_jax.data import pipeline
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.reports import adversarial as adversarial_report
from cnn_jax.reports import html
from cnn_jax.reports.html import Html
from cnn_jax.trained import Trained

from . import attacks as attack_flags


def define() -> None:
    """Define the flags."""
    flags.DEFINE_list(
        "attack",
        None,
        "Attacks under which the accuracy is measured too, of each and of all together: "
        f"{', '.join(registry.ATTACKS)}.",
        module_name="Attack",
    )
    flags.DEFINE_integer(
        "attack_examples",
        None,
        "Number of examples that are attacked, taken from the start of the split; by default all.",
        lower_bound=1,
        module_name="Attack",
    )
    attack_flags.define_budget()


def under_attack(
    network: Trained, dataset: Dataset, preprocessing: Preprocessing
) -> dict[str, Any]:
    """Return the accuracy on the clean examples and for each budget, under those of --attack.

    norm, eps (that of --eps), examples, clean_accuracy, doubts (why the network may be less robust
    than it looks); and of each of `attacks`, as of all of
    them together, robust_accuracy (at eps) and curve.
    """
    pixels_of_one = preprocessing.image_size**2 * len(network.mean)
    names = list(dict.fromkeys(flags.FLAGS.attack))
    attacks, norm, eps, options = attack_flags.chosen(names, pixels_of_one)
    epsilons = sorted({eps, *attack_flags.epsilons(eps, norm, pixels_of_one)})
    images, labels = [], []
    for batch in pipeline.evaluation_batches(dataset, batch_size=128, preprocessing=preprocessing):
        real = batch["weight"] > 0
        images.append(batch["image"][real].astype(np.float32) / 255)
        labels.append(batch["label"][real])
    count = flags.FLAGS.attack_examples
    images, labels = np.concatenate(images)[:count], np.concatenate(labels)[:count]
    logits_of = trained.classifier(network)
    batching = loop.Batching(flags.FLAGS.attack_batch, tuple(jax.local_devices()))
    right = loop.predictions(logits_of, images, batching) == labels
    clean = float(right.mean())

    def accuracy(correct: Bool[np.ndarray, "epsilons n"]) -> dict[str, Any]:
        shares = correct.mean(axis=1).tolist()
        return {
            "robust_accuracy": shares[epsilons.index(eps)],
            "curve": {"eps": [0.0, *epsilons], "accuracy": [clean, *shares]},
        }

    correct = {}
    for name, attack in zip(names, attacks, strict=True):
        correct[name] = robustness.correct_under_attack(
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
    doubts = []
    if any(attack.gradient for attack in attacks):
        none = masking.without_gradient(logits_of, images[right], labels[right], batching)
        doubts += masking.vanishing(none)
    at_eps = {name: each[epsilons.index(eps)] for name, each in correct.items()}
    black_box = at_eps.pop("square", None)
    if black_box is not None and at_eps:
        doubts += masking.black_box_gain(np.logical_and.reduce([*at_eps.values()]), black_box)
    return {
        "norm": norm,
        "eps": eps,
        "examples": len(labels),
        "clean_accuracy": clean,
        "doubts": doubts,
        **accuracy(np.logical_and.reduce([*correct.values()])),
        "attacks": {name: accuracy(each) for name, each in correct.items()},
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Return what is printed: a line an attack, and one for all where there are several."""
    return [
        f"{name}, {result['norm']} eps {result['eps']:.4g}: accuracy "
        f"{result['clean_accuracy']:.2%} -> {each['robust_accuracy']:.2%} "
        f"on {result['examples']} examples"
        for name, each in _rows(result).items()
    ]


def _rows(result: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of each attack, and of all together where there are several."""
    attacks = result["attacks"]
    return attacks if len(attacks) == 1 else attacks | {"all of these": result}


def section(folder: str, result: dict[str, Any]) -> Html:
    """Return the section of the html, and leave attack.png in the folder."""
    attacks = result["attacks"]
    curves = {name: each["curve"] for name, each in attacks.items()}
    figure = adversarial_report.accuracy_curve(curves, result["norm"])
    png = html.figure_png(figure, Path(folder) / "attack.png")
    numbers = {
        "examples": result["examples"],
        "accuracy": f"{result['clean_accuracy']:.2%}",
        f"{result['norm']} {result['eps']:.4g}": f"{result['robust_accuracy']:.2%}",
    }
    parts = [
        html.metrics(numbers),
        *map(html.paragraph, result["doubts"]),
        html.figure(png, "Accuracy against the budget; an image once fooled stays so."),
    ]
    if len(attacks) > 1:
        eps = [f"{each:.4g}" for each in result["curve"]["eps"]]
        shares = (
            [name, *(f"{share:.1%}" for share in each["curve"]["accuracy"])]
            for name, each in _rows(result).items()
        )
        caption = (
            "Accuracy for each budget; the last row counts the images that resist every attack."
        )
        parts.append(html.table(["attack", *eps], shares, caption))
    return html.section(f"Under attack by {', '.join(attacks)}", *parts)
