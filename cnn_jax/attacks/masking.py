"""Signs of masked gradients, which make a network look more robust than it is.

Athalye, Carlini & Wagner 2018, "Obfuscated gradients give a false sense of security".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cnn_jax.attacks import checks, loop, norms
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.tasks.classification import log_odds_against

_BLACK_BOX_GAIN = 0.002  # share of the images that the black-box attack alone may fool


def without_gradient(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    batching: Batching = loop.DEFAULT,
) -> Bool[np.ndarray, " n"]:
    """Return at which images the gradient of the label's odds is zero in every pixel.

    Raises:
      UsageError: as the attacks do.
    """
    images, labels = checks.labelled(logits_of, images, labels)
    state = (images, labels, np.zeros(len(images), bool))
    return loop.run(_look, logits_of, state, steps=1, batching=batching)[2]


def _look(logits_of, state, taken) -> loop.Step:
    images, labels, _ = state
    gradient = jax.grad(lambda x: log_odds_against(logits_of(x), labels).sum())(images)
    none = norms.linf(gradient) == 0
    return loop.Step((images, labels, none), jnp.ones_like(none), loop.not_finite(gradient))


def vanishing(none: Bool[np.ndarray, " n"]) -> list[str]:
    """Return what to tell of images `without_gradient`: nothing where all have one."""
    if not none.any():
        return []
    return [
        f"the gradient vanishes on {int(none.sum())} of {len(none)} images: attacks that follow it "
        "say little there, and what they leave right need not be robust; square needs no gradient"
    ]


def black_box_gain(
    by_gradient: Bool[np.ndarray, " n"], by_black_box: Bool[np.ndarray, " n"]
) -> list[str]:
    """Return what to tell of images that the black-box attack alone fooled, if they are many.

    Args:
      by_gradient, by_black_box: which images each left right.
    """
    gain = float((by_gradient & ~by_black_box).mean()) if len(by_gradient) else 0.0
    if gain <= _BLACK_BOX_GAIN:
        return []
    return [
        f"the black-box attack fooled {gain:.1%} that the gradient's attacks did not: the "
        "gradients may be masked, and a stronger attack fool more"
    ]
