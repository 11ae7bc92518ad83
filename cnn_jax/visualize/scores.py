"""The number that a map explains: an image's score for its target class."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from cnn_jax import errors

Images = Float[Array, "n h w c"]
Targets = Int[Array, " n"] | Sequence[int]
Classifier = Callable[[Images], Float[Array, "n classes"]]

OUTPUTS = {"score": lambda logits: logits, "probability": jax.nn.softmax}


def class_scores(logits: Float[Array, "n classes"], targets: Targets) -> Float[Array, " n"]:
    """Return of each image the logit of its target."""
    return jnp.take_along_axis(logits, jnp.asarray(targets)[:, None], axis=1)[:, 0]


def score_of(
    output: str, logits: Float[Array, "n classes"], targets: Targets
) -> Float[Array, " n"]:
    """Return of each image the "score" (the logit) or the "probability" of its target.

    Raises:
      UsageError: an output that is neither.
    """
    if output not in OUTPUTS:
        raise errors.unknown("output", output, OUTPUTS)
    return class_scores(OUTPUTS[output](logits), targets)


@partial(jax.jit, static_argnames="output")
def class_outputs(f: Partial, images: Images, targets: Targets, output: str) -> Float[Array, " n"]:
    """Return `score_of` of f(images).

    Compiled by itself: what changes images batch by batch, each in its own way, shares it.
    """
    return score_of(output, f(images), targets)
