"""Feature inversion: the image whose activations are those given.

Minimises ||phi(x) - phi0||^2 / ||phi0||^2 + R(x), Mahendran & Vedaldi 2015, "Understanding deep
image representations by inverting them", equations 1 and 4, with R the alpha-norm and the total
variation. What an early layer keeps of its image shows in the inverse, and what a late one forgot.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cnn_jax.platform_loop import Progress
from cnn_jax.visualize import regularizers
from cnn_jax.visualize.minimize import minimize

Activations = Array | Mapping[str, Array]
Regularizer = Callable[[Float[Array, "n h w c"]], Float[Array, " n"]]


class Inversion(NamedTuple):
    """images: the inverses, in 0..1 and a little beyond.
    error: ||phi(x) - phi0||^2 / ||phi0||^2 of each.  history: error plus penalty, by step.
    """

    images: Float[Array, "n h w c"]
    error: Float[Array, " n"]
    history: Float[Array, "steps n"]


def normalized_error(
    activation: Float[Array, "n ..."], target: Float[Array, "n ..."]
) -> Float[Array, " n"]:
    """Return ||activation - target||^2 / ||target||^2 of each example; of a target 0, its sum."""
    axes = tuple(range(1, target.ndim))
    size = jnp.sum(target**2, axes)
    return jnp.sum((activation - target) ** 2, axes) / jnp.where(size > 0, size, 1)


def natural_image(
    alpha_weight: float | Float[Array, " n"] = 1e-3,
    variation_weight: float | Float[Array, " n"] = 1e-2,
    alpha: float = 6.0,
    beta: float = 2.0,
) -> Regularizer:
    """Return the penalty R(x) of the paper, with x = 2 * pixels - 1.

    Both terms are means over the image's numbers instead of sums, so that a weight fits images of
    every size.

    Args:
      alpha_weight, variation_weight: of sum |x|^alpha and of TV^beta; one for all images or each.
    """

    def penalty(images: Float[Array, "n h w c"]) -> Float[Array, " n"]:
        centered, size = 2 * images - 1, images[0].size
        range_cost = regularizers.alpha_norm(centered, alpha)
        variation = regularizers.total_variation(centered, beta)
        return (alpha_weight * range_cost + variation_weight * variation) / size

    return penalty


def momentum(learning_rate: float = 0.1, steps: int = 400) -> optax.GradientTransformation:
    """Return the paper's optimiser: momentum 0.9, the rate x1, x0.1 and x0.01.

    Its shares of the steps are the paper's 100, 200 and 100 of 400 (section 2.3). The rate suits
    images in 0..1; the paper's .004 goes with its scaling of the images.
    """
    rate = optax.piecewise_constant_schedule(
        learning_rate, {steps // 4: 0.1, steps * 3 // 4: 0.1}
    )
    return optax.sgd(rate, momentum=0.9)


def adam(learning_rate: float = 0.05, steps: int = 400) -> optax.GradientTransformation:
    """Return Adam with a rate that falls to nought as a cosine."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def noise(
    key: Array, shape: tuple[int, ...], deviation: float = 0.02
) -> Float[Array, "n h w c"]:
    """Return normal noise around mid-grey, to start from."""
    return 0.5 + deviation * jax.random.normal(key, shape)


def invert(
    f: Callable[[Float[Array, "n h w c"]], Activations],
    target: Activations,
    start: Float[Array, "n h w c"],
    *,
    weights: Mapping[str, Float[Array, " n"]] | None = None,
    regularizer: Regularizer | None = None,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 400,
    progress: Progress | None = None,
) -> Inversion:
    """Return images whose activations are near the target's, each of n for itself.

    Args:
      f: images -> activation [n, ...], or a dict of several.
      target: what f is to give.
      start: the images to start from; see `noise`.
      weights: of each of several activations in each image's error; by default all are 1.
      regularizer: by default `natural_image()`.
      optimizer: of optax, or `lbfgs()`; by default `adam(steps=steps)`. The images of least error
        plus penalty along the way are returned.
    """
    regularizer = natural_image() if regularizer is None else regularizer
    target = target if isinstance(target, Mapping) else {"": target}

    def error(images: Float[Array, "n h w c"]) -> Float[Array, " n"]:
        reached = f(images)
        reached = reached if isinstance(reached, Mapping) else {"": reached}
        errors = {name: normalized_error(reached[name], target[name]) for name in target}
        if weights is not None:
            # a target that has no weight may be anything, infinite too
            errors = {
                name: jnp.where(weights[name] == 0, 0, weights[name] * errors[name])
                for name in target
            }
        return sum(errors.values())

    def loss(images: Float[Array, "n h w c"], _: None) -> Float[Array, " n"]:
        return error(images) + regularizer(images)

    result = minimize(
        loss,
        jnp.asarray(start),
        steps=steps,
        optimizer=adam(steps=steps) if optimizer is None else optimizer,
        progress=progress,
    )
    return Inversion(result.params, jax.jit(error)(result.params), result.history)


def invert_layers(
    f: Callable[[Float[Array, "n h w c"]], Mapping[str, Array]],
    image: Float[Array, "h w c"],
    key: Array,
    *,
    paths: tuple[str, ...] | None = None,
    alpha_weight: float = 1e-3,
    variation_weights: tuple[float, float] = (1e-4, 1e-2),
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 400,
    progress: Progress | None = None,
) -> dict[str, Inversion]:
    """Invert one image from each of several layers: all at once, as the images of one batch.

    Args:
      f: images -> {path: activation}, in order of depth.
      image: in 0..1.
      paths: of the layers to invert; by default all that f gives.
      variation_weights: of the first and of the last layer, growing geometrically in between: the
        less a layer tells of the image, the more the penalty has to.
    """
    target = jax.jit(f)(jnp.asarray(image)[None])
    paths = tuple(target) if paths is None else paths
    count = len(paths)
    weights = dict(zip(paths, jnp.eye(count, dtype=image.dtype), strict=True))
    start = jnp.tile(noise(key, (1, *image.shape)).astype(image.dtype), (count, 1, 1, 1))
    variation = jnp.asarray(np.geomspace(*variation_weights, count), image.dtype)
    result = invert(
        f,
        {path: target[path] for path in paths},
        start,
        weights=weights,
        regularizer=natural_image(alpha_weight, variation),
        optimizer=optimizer,
        steps=steps,
        progress=progress,
    )
    return {
        path: Inversion(result.images[i], result.error[i], result.history[:, i])
        for i, path in enumerate(paths)
    }
