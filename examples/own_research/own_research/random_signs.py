"""An attack: noise of the full budget in every pixel, drawn again until the network errs.

What a network does not stand is no attack's merit if it does not stand this one.
"""

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop
from cnn_jax.attacks.registry import Attack


def random_signs(
    logits_of: loop.LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    key: Key[Array, ""],
    *,
    norm: str,
    eps: float,
    indices: Int[np.ndarray, " n"] | None = None,
    steps: int = 20,
    batching: loop.Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return each image with the first noise of `steps` that fools the network, or as it is.

    An image's noise follows from the key and its index alone.
    """
    del norm  # linf is the only one
    images, labels = checks.labelled(logits_of, images, labels)
    keys = checks.example_keys(key, indices, len(images))
    adversarial, fooled = images.copy(), np.zeros(len(images), bool)
    for step in range(steps):
        signs = jax.vmap(
            lambda key, step=step: jax.random.rademacher(
                jax.random.fold_in(key, step), images.shape[1:], images.dtype
            )
        )(keys)
        tried = np.clip(images + eps * np.asarray(signs), 0, 1)
        new = ~fooled & (loop.predictions(logits_of, tried, batching) != labels)
        adversarial[new] = tried[new]
        fooled |= new
    return adversarial


RANDOM_SIGNS = Attack(random_signs, norms=("linf",), bounded=True, random=True, gradient=False)
