"""How a network stands an attack: verdicts on adversarial images, and up to which budget."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key

from cnn_jax.attacks import checks, loop, masking
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.attacks.norms import NORMS
from cnn_jax.attacks.registry import Attack
from cnn_jax.errors import UsageError


class Verdict(NamedTuple):
    """What a network makes of each image, before and after.

    before, after: its class.  probabilities_before, probabilities_after: of all classes.
    fooled: whether it is not the label any more, or is the target where there was one.
    sizes: of the perturbations, by norm.
    """

    before: Int[np.ndarray, " n"]
    after: Int[np.ndarray, " n"]
    probabilities_before: Float[np.ndarray, "n classes"]
    probabilities_after: Float[np.ndarray, "n classes"]
    fooled: Bool[np.ndarray, " n"]
    sizes: dict[str, Float[np.ndarray, " n"]]


def judge(
    logits_of: LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    adversarial: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    targets: Int[np.ndarray, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Verdict:
    """Return the verdict on adversarial images, from nothing but their pixels.

    Raises:
      UsageError: labels or targets that are no classes, or not one an image.
    """
    images, labels = checks.labelled(logits_of, images, labels)
    if targets is not None:
        targets = checks.classes_of("target", targets, logits_of, images)
    before, after = (
        np.asarray(jax.nn.softmax(loop.logits(logits_of, x, batching), axis=1))
        for x in (images, adversarial)
    )
    found = after.argmax(axis=1)
    sizes = {
        name: np.asarray(norm.size(jnp.asarray(adversarial) - images))
        for name, norm in NORMS.items()
    }
    fooled = found != labels if targets is None else found == targets
    return Verdict(before.argmax(axis=1), found, before, after, fooled, sizes)


def attack_right_ones(
    attack: Attack,
    logits_of: LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    key: Key[jax.Array, ""],
    *,
    batching: Batching = loop.DEFAULT,
    indices: Int[np.ndarray, " n"] | None = None,
    targets: Int[np.ndarray, " n"] | None = None,
    **options: Any,
) -> Float[np.ndarray, "n h w c"]:
    """Return the images, those that the network reads rightly replaced by adversarial ones.

    Args:
      indices: the examples' numbers, by default 0 to n - 1.
      options: of the attack's function, e.g. norm and eps.

    Raises:
      UsageError: the network misreads every image, or what the attack raises.
    """
    images, labels = checks.labelled(logits_of, images, labels)
    if targets is not None:
        if not attack.targeted:
            raise UsageError("this attack has no targeted form; leave the target out, or take pgd")
        targets = checks.targeted(logits_of, images, labels, targets)
    right = np.flatnonzero(loop.predictions(logits_of, images, batching) == labels)
    if not len(right):
        raise UsageError(
            f"the network misreads all {len(images)} images as they are; there is nothing to attack"
        )
    if attack.random:
        options["indices"] = right if indices is None else np.asarray(indices)[right]
    if targets is not None:
        options["targets"] = targets[right]
    adversarial = images.copy()
    adversarial[right] = attack.function(
        logits_of, images[right], labels[right], key, batching=batching, **options
    )
    return adversarial


def correct_under_attack(
    attack: Attack,
    logits_of: LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    key: Key[jax.Array, ""],
    epsilons: Sequence[float],
    *,
    norm: str,
    batching: Batching = loop.DEFAULT,
    **options: Any,
) -> Bool[np.ndarray, "epsilons n"]:
    """Return which images stay correct under each budget; their shares are the robust accuracies.

    An image that a smaller budget fooled is not attacked again: a larger one holds the smaller. An
    attack without a budget runs once, and its perturbations are measured.

    Args:
      epsilons: the budgets, ascending.
      options: of the attack's function.

    Raises:
      UsageError: budgets that do not ascend, or what the attack raises.
    """
    images, labels = checks.labelled(logits_of, images, labels)
    options |= {"norm": norm, "batching": batching}
    if list(epsilons) != sorted(epsilons):
        raise UsageError("epsilons are not in ascending order; sort them")
    if not attack.bounded:
        adversarial = attack_right_ones(attack, logits_of, images, labels, key, **options)
        verdict = judge(logits_of, images, adversarial, labels, batching=batching)
        smallest = np.where(verdict.fooled, verdict.sizes[norm], np.inf)
        return smallest > np.asarray(epsilons)[:, None]
    if attack.stops:
        options["early_stop"] = True
    right = loop.predictions(logits_of, images, batching) == labels
    rows = []
    for eps in epsilons:
        left = np.flatnonzero(right)
        if len(left):
            adversarial = attack_right_ones(
                attack,
                logits_of,
                images[left],
                labels[left],
                key,
                indices=left,
                eps=eps,
                **options,
            )
            right[left] = loop.predictions(logits_of, adversarial, batching) == labels[left]
        rows.append(right.copy())
    return np.stack(rows)


def accuracy_under_attacks(
    attacks: Mapping[str, Attack],
    logits_of: LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    key: Key[jax.Array, ""],
    epsilons: Sequence[float],
    *,
    eps: float,
    norm: str,
    batching: Batching = loop.DEFAULT,
    **options: Any,
) -> dict[str, Any]:
    """Return the accuracy on clean examples and for each budget, under each attack and under all.

    Args:
      attacks: by the names they have in attacks.registry.
      epsilons: the budgets of the curves, to which eps is added.
      options: of every attack's function.

    Returns:
      norm, eps, examples, clean_accuracy, doubts (why the network may be less robust than it looks,
      see attacks.masking); and of each of `attacks`, as of all of them together, robust_accuracy
      (at eps) and curve {"eps", "accuracy"}.
    """
    epsilons = sorted({eps, *epsilons})
    at = epsilons.index(eps)
    right = loop.predictions(logits_of, images, batching) == labels
    clean = float(right.mean())

    def accuracy(correct: Bool[np.ndarray, "epsilons n"]) -> dict[str, Any]:
        shares = correct.mean(axis=1).tolist()
        curve = {"eps": [0.0, *epsilons], "accuracy": [clean, *shares]}
        return {"robust_accuracy": shares[at], "curve": curve}

    correct = {
        name: correct_under_attack(
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
        for name, attack in attacks.items()
    }
    doubts = []
    if any(attack.gradient for attack in attacks.values()):
        none = masking.without_gradient(logits_of, images[right], labels[right], batching)
        doubts += masking.vanishing(none)
    at_eps = {name: each[at] for name, each in correct.items()}
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
