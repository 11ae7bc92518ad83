"""AutoAttack: four attacks in turn, each on the images that resisted those before it."""

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, masking, norms
from cnn_jax.attacks.apgd import apgd, apgd_targeted
from cnn_jax.attacks.fab import fab
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.attacks.square import square
from cnn_jax.errors import UsageError

_RANDOM = 1e-4  # difference of two passes' normalised logits
_PROBABILITY = 1e-5


class Evaluation(NamedTuple):
    """What the ensemble found.

    adversarial: images; those that stood all attacks as they were.
    accuracy: left after each attack, by its name, "clean" first.
    warnings: why the accuracy may be higher than the network deserves.
    """

    adversarial: Float[np.ndarray, "n h w c"]
    accuracy: dict[str, float]
    warnings: tuple[str, ...]


def evaluate(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""],
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    queries: int = 5000,
    indices: Int[Array, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Evaluation:
    """Run the standard ensemble of Croce & Hein 2020.

    APGD on the cross-entropy, targeted APGD on the ratio of logits for 9 classes, targeted FAB for
    9 classes, Square.

    Args:
      eps: the ball's radius in the norm, "linf" or "l2".
      steps: of the first three attacks.  queries: of the last.
      indices: the examples' numbers, which their randomness derives from; by default 0 to n - 1.

    Raises:
      UsageError: fewer than four classes, or as for apgd.apgd.
    """
    norms.find(norm, ("linf", "l2"))
    images, labels = checks.labelled(logits_of, images, labels)
    checks.check_eps(eps, norm, images[:1].size)
    classes = loop.classes(logits_of, images)
    if classes < 4:
        raise UsageError(
            f"the network tells {classes} classes apart, and AutoAttack's losses need four; take "
            "apgd with loss='ce', fab and square"
        )
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    common = {"norm": norm, "batching": batching}
    bounded = {"eps": eps, **common}
    attacks = {
        "apgd_ce": partial(apgd, steps=steps, early_stop=True, **bounded),
        "apgd_targeted": partial(apgd_targeted, steps=steps, early_stop=True, **bounded),
        "fab": partial(fab, steps=steps, enough=eps, **common),
        "square": partial(square, steps=queries, **bounded),
    }
    none = masking.without_gradient(logits_of, images, labels, batching)
    found = [*odd_outputs(logits_of, images), *masking.vanishing(none)]
    adversarial = images.copy()
    resisting = loop.predictions(logits_of, images, batching) == labels
    accuracy, before = {"clean": float(resisting.mean())}, resisting
    for number, (name, attack) in enumerate(attacks.items()):
        before, left = resisting.copy(), np.flatnonzero(resisting)
        if len(left):
            draws = {} if name == "fab" else {"indices": indices[left]}
            changed = attack(
                logits_of, images[left], labels[left], jax.random.fold_in(key, number), **draws
            )
            fooled = loop.predictions(logits_of, changed, batching) != labels[left]
            if name == "fab":  # it makes the norm small, and need not have come within the budget
                fooled &= np.asarray(norms.NORMS[norm].size(changed - images[left])) <= eps
            adversarial[left[fooled]] = changed[fooled]
            resisting[left[fooled]] = False
        accuracy[name] = float(resisting.mean())
    found += masking.black_box_gain(before, resisting)
    checks.assert_within(images, adversarial, eps, norm)
    return Evaluation(adversarial, accuracy, tuple(found))


def autoattack(
    logits_of: LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    key: Key[jax.Array, ""],
    **options: Any,
) -> Float[np.ndarray, "n h w c"]:
    """Return the adversarial images of `evaluate`, whose doubts become Python warnings."""
    found = evaluate(logits_of, images, labels, key, **options)
    for text in found.warnings:
        warnings.warn(text, stacklevel=2)
    return found.adversarial


def odd_outputs(logits_of: LogitsOf, images: Float[np.ndarray, "n h w c"]) -> list[str]:
    """Return doubts about the outputs for a few images: random ones, or probabilities."""
    some = jnp.asarray(images[:8])
    first, second = (np.asarray(logits_of(some)) for _ in range(2))  # not jitted: that would repeat
    found = []
    scale = np.linalg.norm(first, axis=1, keepdims=True) + 1e-10
    if np.abs((first - second) / scale).max(initial=0) > _RANDOM:
        found.append(
            "the network gives other logits for the same image again: average over its randomness "
            "before attacking it"
        )
    sums = first.sum(axis=1)
    if first.min() > -_PROBABILITY and np.abs(sums - 1).max() < _PROBABILITY:
        found.append("the outputs look like probabilities: give the logits, before the softmax")
    return found
