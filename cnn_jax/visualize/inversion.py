"""Feature inversion: the image whose activations are those given.

Minimises ||phi(x) - phi0||^2 / ||phi0||^2 + R(x), Mahendran & Vedaldi 2015, "Understanding deep
image representations by inverting them", equations 1 and 4, with R the alpha-norm and the total
variation. What an early layer keeps of its image shows in the inverse, and what a late one forgot.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import Progress
from cnn_jax.visualize import image_parameterization, image_transforms, regularizers
from cnn_jax.visualize.batching import in_batches
from cnn_jax.visualize.image_parameterization import Parameterization
from cnn_jax.visualize.lbfgs import lbfgs
from cnn_jax.visualize.minimize import Watch, minimize

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

    return Partial(_natural_image, alpha, beta, alpha_weight, variation_weight)


def _natural_image(alpha, beta, alpha_weight, variation_weight, images) -> Float[Array, " n"]:
    centered, size = 2 * images - 1, images[0].size
    range_cost = regularizers.alpha_norm(centered, alpha)
    variation = regularizers.total_variation(centered, beta)
    return (alpha_weight * range_cost + variation_weight * variation) / size


def momentum(learning_rate: float = 0.1, steps: int = 400) -> optax.GradientTransformation:
    """Return the paper's optimiser: momentum 0.9, the rate x1, x0.1 and x0.01.

    Its shares of the steps are the paper's 100, 200 and 100 of 400 (section 2.3). The rate suits
    images in 0..1; the paper's .004 goes with its scaling of the images.
    """
    rate = optax.piecewise_constant_schedule(learning_rate, {steps // 4: 0.1, steps * 3 // 4: 0.1})
    return optax.sgd(rate, momentum=0.9)


def adam(learning_rate: float = 0.05, steps: int = 400) -> optax.GradientTransformation:
    """Return Adam with a rate that falls to nought as a cosine."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def noise(key: Array, shape: tuple[int, ...], deviation: float = 0.02) -> Float[Array, "..."]:
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
    watch: Watch | None = None,
) -> Inversion:
    """Return images whose activations are near the target's, each of n for itself.

    Args:
      f: images -> activation [n, ...], or a dict of several.
      target: what f is to give.
      start: the images to start from; see `noise`.
      weights: of each of several activations in each image's error; by default all are 1.
      regularizer: by default `natural_image()`.
      optimizer: of optax, or `lbfgs()`; by default the latter, which gets much further than the
        others in as many steps. The images of least error plus penalty are returned.
      watch: watch(steps made, those images so far, error plus penalty), after each step.
    """
    regularizer = as_partial(natural_image() if regularizer is None else regularizer)
    result = minimize(
        _loss,
        jnp.asarray(start),
        None,
        *(as_partial(f), target, weights, regularizer),
        steps=steps,
        optimizer=lbfgs() if optimizer is None else optimizer,
        progress=progress,
        watch=watch,
    )
    error = jax.jit(_error)(result.params, as_partial(f), target, weights)
    return Inversion(result.params, error, result.history)


def _error(images, f, target, weights) -> Float[Array, " n"]:
    reached = f(images)
    if not isinstance(target, Mapping):
        return normalized_error(reached, target)
    errors = {path: normalized_error(reached[path], target[path]) for path in target}
    if weights is not None:
        # where a target counts for nothing its error may be infinite
        errors = {p: jnp.where(weights[p] == 0, 0, weights[p] * errors[p]) for p in errors}
    return sum(errors.values())


def _loss(images, _, f, target, weights, regularizer) -> Float[Array, " n"]:
    return _error(images, f, target, weights) + regularizer(images)


def invert_by_spectra(
    f: Callable[[Float[Array, "n h w c"]], Mapping[str, Array]],
    paths: Sequence[str],
    images: Float[Array, "m h w c"],
    key: Array,
    *,
    alpha_weight: float = 3e-3,
    variation_weight: float = 0.03,
    learning_rate: float = 0.05,
    steps: tuple[int, int] = (50, 200),
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Inversion]:
    """Invert images from each of several layers, moving spectra in decorrelated colours.

    Over spectra (Olah et al. 2017) L-BFGS finds the large shapes and the colours as soon as the
    grain. A layer without rows and columns does not say where anything is, and fine grain alone
    would meet it: there Adam moves the spectrum while the image is shifted, scaled and turned at
    random before each step, so that only larger shapes will do.

    Args:
      f: images -> {path: activation}.
      paths: of the layers to invert, in order of depth.
      images: in 0..1.
      alpha_weight, variation_weight: of `natural_image`.
      learning_rate: of Adam, at first.
      steps: for the first and for the last layer, growing geometrically in between.
      batch_size: images at a time, on which what is drawn depends; None: all.

    Returns:
      Of each path the inversions of the m images; the errors are of the images as they are.
    """
    images = jnp.asarray(images)
    budgets = np.geomspace(*steps, len(paths)).round().astype(int)
    found = {}
    for path, budget in zip(paths, budgets, strict=True):
        of_layer = Partial(partial(_only, path), as_partial(f))
        options = {"steps": int(budget), "learning_rate": learning_rate, "progress": progress}
        invert = partial(
            _from_spectrum, of_layer, key, penalty=(alpha_weight, variation_weight), **options
        )
        inverse = in_batches(invert, images, batch_size=batch_size)
        found[path] = inverse._replace(history=inverse.history.T)
    return found


def _from_spectrum(f, key, images, *, penalty, learning_rate, steps, progress) -> Inversion:
    """Return the inversions of a layer; their history is [n, steps], as batches are joined."""
    drawn, key = jax.random.split(key)
    target = jax.jit(lambda f, images: f(images))(f, images)
    tells_where = target.ndim > 2
    parameterization = image_parameterization.fourier(images.shape)
    found = minimize(
        _spectrum_loss(parameterization, None if tells_where else moved(images.shape[1])),
        parameterization.init(drawn).astype(images.dtype),
        None if tells_where else key,
        *(f, target, natural_image(*penalty)),
        steps=steps,
        optimizer=lbfgs() if tells_where else adam(learning_rate, steps),
        progress=progress,
    )
    inverse = parameterization.decode(found.params)
    error = jax.jit(_error)(inverse, f, target, None)
    return Inversion(inverse, error, found.history.T)


@lru_cache(maxsize=16)  # one object for a size, by which programs are found again
def moved(size: int) -> image_transforms.Transform:
    """Return the random transformation under which a vector of features is met.

    Scales of .9 to 1.1, turns of -10 to 10 degrees, and shifts by up to a fourteenth of the size,
    mirrored at the edges.
    """
    distance = max(1, size // 14)
    return image_transforms.compose(
        image_transforms.pad(distance, None),
        image_transforms.random_affine((0.9, 1.1), (-10.0, 10.0)),
        image_transforms.jitter(2 * distance),
    )


@lru_cache(maxsize=64)  # so that another batch compiles nothing
def _spectrum_loss(
    parameterization: Parameterization, transform: image_transforms.Transform | None
):
    def loss(params, key, f, target, regularizer):
        images = parameterization.decode(params)
        seen = images if transform is None else transform(key, images)
        return normalized_error(f(seen), target) + regularizer(images)

    return loss


def _only(path, f, images):
    return f(images)[path]


def invert_layers(
    f: Callable[[Float[Array, "n h w c"]], Mapping[str, Array]],
    paths: Sequence[str],
    images: Float[Array, "m h w c"],
    key: Array,
    *,
    alpha_weight: float = 3e-3,
    variation_weights: tuple[float, float] = (1e-4, 0.1),
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 400,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Inversion]:
    """Invert images from each of several layers, many at once: a batch is of layers and images.

    Args:
      f: images -> {path: activation}.
      paths: of the layers to invert, in order of depth.
      images: in 0..1.
      variation_weights: of the first and of the last layer, growing geometrically in between: the
        less a layer tells of the image, the more the penalty has to.
      batch_size: inversions at a time; None: all. It changes no result but by rounding.

    Returns:
      Of each path the inversions of the m images, the errors being that path's alone.
    """
    images = jnp.asarray(images)
    count, targets = len(images), jax.jit(f)(images)
    variation = jnp.asarray(np.geomspace(*variation_weights, len(paths)), images.dtype)
    jobs = [(layer, image) for layer in range(len(paths)) for image in range(count)]
    batches = -(-len(jobs) // (batch_size or len(jobs)))
    size = -(-len(jobs) // batches)  # as even as may be
    done = []
    for first in range(0, len(jobs), size):
        # filled up with the last one, so that every batch has one shape
        batch = jobs[first : first + size]
        layer, image = np.array(batch + batch[-1:] * (size - len(batch))).T
        start = noise(key, images.shape[1:]).astype(images.dtype)
        result = invert(
            f,
            {path: targets[path][image] for path in paths},
            jnp.broadcast_to(start, (size, *start.shape)),
            weights={path: jnp.asarray(layer == i, images.dtype) for i, path in enumerate(paths)},
            regularizer=natural_image(alpha_weight, variation[layer]),
            optimizer=optimizer,
            steps=steps,
            progress=progress,
        )
        done += [
            Inversion(result.images[i], result.error[i], result.history[:, i])
            for i in range(len(batch))
        ]
    return {
        path: Inversion(
            jnp.stack([each.images for each in done[i * count : (i + 1) * count]]),
            jnp.stack([each.error for each in done[i * count : (i + 1) * count]]),
            jnp.stack([each.history for each in done[i * count : (i + 1) * count]], axis=1),
        )
        for i, path in enumerate(paths)
    }
