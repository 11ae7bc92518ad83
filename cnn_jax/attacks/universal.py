"""Universal perturbations: one perturbation that fools a network on most images."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, norms
from cnn_jax.attacks.deepfool import deepfool
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.errors import UsageError
from cnn_jax.runtime import parallel
from cnn_jax.runtime.partial import as_partial
from cnn_jax.tasks.classification import log_odds_against


def add(
    images: Float[np.ndarray, "n h w c"], perturbation: Float[np.ndarray, "h w c"]
) -> Float[np.ndarray, "n h w c"]:
    """Return the perturbed images, pixels kept in 0..1."""
    return np.clip(images + perturbation, 0, 1)


def fooling_rate(
    logits_of: LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    perturbation: Float[np.ndarray, "h w c"],
    batching: Batching = loop.DEFAULT,
) -> float:
    """Return the share of images whose class is another one with the perturbation than without."""
    before = loop.predictions(logits_of, images, batching)
    return float(
        (loop.predictions(logits_of, add(images, perturbation), batching) != before).mean()
    )


def transfer(
    networks: Mapping[str, LogitsOf],
    perturbations: Mapping[str, Float[np.ndarray, "h w c"]],
    images: Float[np.ndarray, "n h w c"],
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "perturbations networks"]:
    """Return the fooling rate of each perturbation, a row, on each network, a column."""
    return np.array(
        [
            [fooling_rate(logits_of, images, each, batching) for logits_of in networks.values()]
            for each in perturbations.values()
        ]
    )


def universal_deepfool(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    key: Key[Array, ""],
    *,
    eps: float,
    norm: str = "linf",
    goal: float = 0.8,
    epochs: int = 10,
    together: int = 8,
    steps: int = 10,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "h w c"]:
    """Return one perturbation, the sum of what DeepFool adds for image after image.

    Moosavi-Dezfooli et al. 2017, algorithm 1, for some images at a time: DeepFool starts at each
    image with the perturbation so far, unless that fools it; the steps it takes are added up, and
    the sum is brought back into the ball. Images are looked at in groups, and wait until there are
    enough that are not fooled.

    Args:
      key: of the images' order.
      eps: the ball's radius in the norm, "linf" or "l2".
      goal: the fooling rate on the images at which to stop.
      epochs: passes over the images, at most.
      together: images, at least, whose steps are computed with the same perturbation.
      steps: of DeepFool.

    Raises:
      UsageError: no image, pixels or budget not in units of 0..1.
    """
    norm = norms.find(norm, ("linf", "l2"))
    images, classes = _with_their_classes(logits_of, images, batching)
    checks.check_eps(eps, norm.name, images[:1].size)
    perturbation = np.zeros(images.shape[1:], images.dtype)
    group = Batching(together, batching.devices)
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(images)))
        waiting = order[:0]
        for start in range(0, len(images), together):
            looked_at = order[start : start + together]
            seen = loop.predictions(logits_of, add(images[looked_at], perturbation), group)
            waiting = np.concatenate([waiting, looked_at[seen == classes[looked_at]]])
            last = start + together >= len(images)
            if len(waiting) < (1 if last else together):
                continue
            chosen, waiting = waiting, order[:0]
            moved = add(images[chosen], perturbation)
            found = deepfool(
                logits_of, moved, classes[chosen], norm="l2", steps=steps, batching=group
            )
            step = (found - moved).sum(axis=0)
            perturbation = np.asarray(
                norm.project((perturbation + step)[None], np.full(1, eps, images.dtype))[0]
            )
        moved = loop.predictions(logits_of, add(images, perturbation), batching)
        if (moved != classes).mean() >= goal:
            break
    return perturbation


@partial(jax.jit, static_argnames="norm")
def _sgd_step(logits_of, perturbation, images, labels, weight, eps, step_size, clamp, *, norm):
    """One step up the mean clamped loss of a batch, whose sum XLA takes over all devices."""

    def loss(perturbation):
        values = log_odds_against(logits_of(jnp.clip(images + perturbation, 0, 1)), labels)
        return (weight * jnp.minimum(values, clamp)).sum() / weight.sum()

    ascent = norm.ascent(jax.grad(loss)(perturbation)[None])
    return norm.project(perturbation[None] + step_size * ascent, eps[None])[0]


def universal_sgd(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    key: Key[Array, ""],
    *,
    eps: float,
    norm: str = "linf",
    epochs: int = 10,
    step_size: float | None = None,
    clamp: float = 12.0,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "h w c"]:
    """Return one perturbation by stochastic ascent of the images' mean loss.

    Shafahi et al. 2020: the cross-entropy, clamped so that no image outweighs the others, of the
    classes that the network gives the images. In its place stand the logarithmic odds against the
    class, which are the cross-entropy of an image that is fooled, and of one that is not have a
    gradient however sure the network is.

    Args:
      key: of the images' order.
      eps: the ball's radius in the norm, "linf" or "l2".
      step_size: by default 0.8 eps.
      batching: images a step, and the devices that share them.

    Raises:
      UsageError: no image, pixels or budget not in units of 0..1.
    """
    norm = norms.find(norm, ("linf", "l2"))
    images, classes = _with_their_classes(logits_of, images, batching)
    checks.check_eps(eps, norm.name, images[:1].size)
    step_size = 0.8 * eps if step_size is None else step_size
    mesh = parallel.data_mesh(list(batching.devices or jax.devices()[:1]))
    size = -(-min(batching.size, len(images)) // mesh.size) * mesh.size
    spread = NamedSharding(mesh, PartitionSpec(parallel.AXIS))
    put = partial(jax.device_put, device=parallel.replicated(mesh))
    logits_of, eps = put((as_partial(logits_of), np.asarray(eps, images.dtype)))
    perturbation = put(np.zeros(images.shape[1:], images.dtype))
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(images)))
        for start in range(0, len(images), size):
            chosen = order[start : start + size]
            weight = (np.arange(size) < len(chosen)).astype(images.dtype)
            chosen = np.resize(chosen, size)
            batch = jax.device_put((images[chosen], classes[chosen], weight), spread)
            perturbation = _sgd_step(
                logits_of, perturbation, *batch, eps, step_size, clamp, norm=norm
            )
    return np.asarray(perturbation)


def _with_their_classes(
    logits_of: LogitsOf, images: Float[Array, "n h w c"], batching: Batching
) -> tuple[Float[np.ndarray, "n h w c"], Int[np.ndarray, " n"]]:
    if not len(images):
        raise UsageError("there is no image to make a universal perturbation of")
    images, _ = checks.labelled(logits_of, images, np.zeros(len(images), np.int32))
    return images, loop.predictions(logits_of, images, batching).astype(np.int32)
