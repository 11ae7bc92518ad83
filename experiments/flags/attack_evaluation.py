"""Accuracy under attack of a data set's split: what experiments.evaluate --attack adds."""

from typing import Any

import jax
from absl import flags

from cnn_jax import trained
from cnn_jax.attacks import loop, registry, robustness
from cnn_jax.data import pipeline
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.preprocessing import Preprocessing
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
    """Return attacks.robustness.accuracy_under_attacks of --attack on the split's examples."""
    pixels_of_one = preprocessing.image_size**2 * len(network.mean)
    names = list(dict.fromkeys(flags.FLAGS.attack))
    attacks, norm, eps, options = attack_flags.chosen(names, pixels_of_one)
    images, labels = pipeline.first_examples(dataset, preprocessing, flags.FLAGS.attack_examples)
    return robustness.accuracy_under_attacks(
        dict(zip(names, attacks, strict=True)),
        trained.classifier(network),
        images,
        labels,
        jax.random.key(0),
        attack_flags.epsilons(eps, norm, pixels_of_one),
        eps=eps,
        norm=norm,
        batching=loop.Batching(flags.FLAGS.attack_batch, tuple(jax.local_devices())),
        **options,
    )
