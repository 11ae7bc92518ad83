"""Gradient ascent: the image that excites a class, a channel, a neuron or a layer the most.

Two ways. `simonyan`: from zeros, the score less lambda ||x||^2 (Simonyan et al. 2014, section 2;
the lecture's). `lucid`: a spectrum in decorrelated colours that has to score under random
transformations (Olah et al. 2017). Both give several images at once.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import Progress
from cnn_jax.visualize import image_parameterization, image_transforms, regularizers
from cnn_jax.visualize.image_parameterization import Parameterization
from cnn_jax.visualize.image_transforms import Transform
from cnn_jax.visualize.minimize import minimize

Penalty = Callable[[Float[Array, "n h w c"]], Float[Array, " n"]]
F = Callable[[Float[Array, "n h w c"]], Float[Array, "n ..."]]  # images -> logits or activation
Objective = Callable[[Float[Array, "n ..."]], Float[Array, " n"]]  # of f's output; to be maximised
# watch(steps made, images, what is maximised before the last step); what it raises ends the ascent
Watch = Callable[[int, Float[Array, "n h w c"], Float[Array, " n"]], None]

STEP_RMS = 0.004  # of the pixels' change by a step of `simonyan`: .1 in norm at 16 x 16 x 3


class Ascent(NamedTuple):
    """images: in 0..1.  start, score: the objective at the start and of the images.
    history: what was maximised, by step: the objective less penalties, under transformations.
    """

    images: Float[Array, "n h w c"]
    start: Float[Array, " n"]
    score: Float[Array, " n"]
    history: Float[Array, "steps n"]


def channel(indices: Int[Array, " n"] | Sequence[int]) -> Objective:
    """Return the objective of a class (of logits), or of a channel's mean (of a map), an image."""
    return Partial(_channel, jnp.asarray(indices))


def _channel(indices, activation):
    mean = activation.mean(axis=tuple(range(1, activation.ndim - 1)))
    return jnp.take_along_axis(mean, indices[:, None], axis=-1)[:, 0]


def neuron(
    indices: Int[Array, " n"] | Sequence[int], row: int | None = None, column: int | None = None
) -> Objective:
    """Return the objective of one unit of a channel's map; by default the one in the middle."""
    return Partial(_neuron, jnp.asarray(indices), row, column)


def _neuron(indices, row, column, activation):
    h, w = activation.shape[1:3]
    at = activation[:, h // 2 if row is None else row, w // 2 if column is None else column]
    return jnp.take_along_axis(at, indices[:, None], axis=-1)[:, 0]


@Partial
def layer(activation: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Return half the mean square: the gradient is the activation, as in DeepDream."""
    return jnp.mean(activation**2, axis=tuple(range(1, activation.ndim))) / 2


def redirected_relu(x: Array, g: Array) -> Array:
    """Return a ReLU's gradient by which ascent can wake a unit that is off.

    The rule of Lucid for the first steps, as a `relu_rule`: where a whole example lets nothing
    through, the gradient passes unless it pushes an inactive unit further down. g is the gradient
    of what is minimised.
    """
    plain = jnp.where(x > 0, g, 0)
    redirected = jnp.where((x <= 0) & (g > 0), 0, g)
    blocked = jnp.all(plain == 0, axis=tuple(range(1, x.ndim)), keepdims=True)
    return jnp.where(blocked, redirected, plain)


def diversity(activation: Float[Array, "n ... c"]) -> Float[Array, " n"]:
    """Return minus the sum of the cosines between an image's Gram matrix and the others'.

    Added to an objective it drives images apart in style. Olah et al. 2017, "Diversity"; as Lucid's
    the mean over the images is what counts.
    """
    features = activation.reshape(len(activation), -1, activation.shape[-1])
    grams = jnp.einsum("nic,nid->ncd", features, features).reshape(len(activation), -1)
    norms = jnp.linalg.norm(grams, axis=1, keepdims=True)
    grams = grams / jnp.maximum(norms, 1e-12)  # as torch.nn.functional.normalize
    return -(jnp.sum(grams @ grams.T, axis=1) - jnp.sum(grams**2, axis=1))


def ascend(
    f: F,
    objective: Objective,
    parameterization: Parameterization,
    params: Array,
    key: Array | None = None,
    *,
    transform: Transform | None = None,
    penalty: Penalty | None = None,
    diverse: F | None = None,
    diversity_weight: float = 0.0,
    first: tuple[F, int] | None = None,
    project: Callable[[Array], Array] = lambda params: params,
    optimizer: optax.GradientTransformation,
    steps: int,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Ascent:
    """Maximise an objective of f over images.

    Args:
      f: images in 0..1 -> logits or an activation.
      parameterization, params: what is moved, and from where.
      key: of the transformations.
      transform: what the images go through at each step.
      penalty: subtracted from the objective; of images less mid-grey.
      diverse: images -> the activation [n, ..., c] by whose style they are to differ.
      first: another f, with another ReLU rule say, for that many steps at the beginning.
      project: applied to the parameters after each step, a blur for example.
      watch: is shown the images after each step.
    """
    if transform is not None and key is None:
        raise ValueError("transformations are drawn; give a key")

    f, objective = as_partial(f), as_partial(objective)
    others = (objective, None if diverse is None else as_partial(diverse))
    loss = _loss(parameterization, transform, penalty, diversity_weight)
    start, histories = _score(f, objective, parameterization.decode(params)), []
    phases = [(as_partial(first[0]), min(first[1], steps))] if first else []
    phases.append((f, steps - sum(count for _, count in phases)))
    for phase, (function, count) in enumerate(phases):
        found = minimize(
            loss,
            params,
            None if key is None else jax.random.fold_in(key, phase),
            *(function, *others),
            steps=count,
            optimizer=optimizer,
            project=project,
            progress=progress,
            watch=watch and _watched(watch, parameterization, sum(map(len, histories))),
        )
        params = found.params
        histories.append(-found.history)
    images = jnp.clip(parameterization.decode(params), 0, 1)
    return Ascent(images, start, _score(f, objective, images), jnp.concatenate(histories))


def _watched(watch: Watch, parameterization: Parameterization, before: int) -> Callable:
    def watched(made, params, loss):
        watch(before + made, jnp.clip(parameterization.decode(params), 0, 1), -loss)

    return watched


@functools.lru_cache(maxsize=16)  # so that another ascent of this kind compiles nothing
def _loss(
    parameterization: Parameterization,
    transform: Transform | None,
    penalty: Penalty | None,
    diversity_weight: float,
) -> Callable[..., Float[Array, " n"]]:
    """Return what is minimised: minus the objective, with what goes into it beside the network."""

    def gain(params, key, f, objective, diverse):
        images = parameterization.decode(params)
        seen = images if transform is None else transform(key, images)
        value = objective(f(seen))
        if penalty is not None:
            value = value - penalty(images - 0.5)
        if diverse is not None:
            value = value + diversity_weight * diversity(diverse(seen))
        return value

    return lambda *args: -gain(*args)


@jax.jit
def _score(f, objective, images):
    return objective(f(images))


def simonyan(
    f: F,
    objective: Objective,
    shape: tuple[int, int, int, int],
    *,
    l2_weight: float = 0.01,
    variation_weight: float = 0.0,
    blur: float = 0.0,
    learning_rate: float | None = None,
    steps: int = 200,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Ascent:
    """Maximise the objective less l2_weight ||x||^2 from zeros, the data's mean being mid-grey.

    Steepest ascent with momentum .9, the gradient scaled to norm 1, and the pixels kept in 0..1.

    Args:
      variation_weight: of the total variation, a further penalty.
      blur: deviation in pixels of a blur after every step; 0 is none.
      learning_rate: the norm of a step where the gradient lasts; by default one by which the images
        gain contrast as fast at every size.
    """
    if learning_rate is None:
        learning_rate = STEP_RMS * math.prod(shape[1:]) ** 0.5
    return ascend(
        f,
        objective,
        image_parameterization.pixels(shape),
        jnp.zeros(shape),
        penalty=_penalty(l2_weight, variation_weight),
        project=_projection(blur),
        optimizer=_steepest(learning_rate),
        steps=steps,
        progress=progress,
        watch=watch,
    )


@functools.lru_cache(maxsize=16)
def _penalty(l2_weight: float, variation_weight: float) -> Penalty:
    def penalty(x):
        cost = l2_weight * regularizers.l2(x)
        if variation_weight:
            cost = cost + variation_weight * regularizers.total_variation(x)
        return cost

    return penalty


@functools.lru_cache(maxsize=16)
def _projection(blur: float) -> Callable[[Array], Array]:
    return lambda x: jnp.clip(image_transforms.gaussian_blur(x, blur) if blur else x, -0.5, 0.5)


@functools.lru_cache(maxsize=16)
def _steepest(learning_rate: float) -> optax.GradientTransformation:
    momentum = optax.sgd(learning_rate * (1 - 0.9), momentum=0.9)
    return optax.chain(_normalized_by_image(), momentum)


_adam = functools.lru_cache(maxsize=16)(optax.adam)


def lucid(
    f: F,
    objective: Objective,
    shape: tuple[int, int, int, int],
    key: Array,
    *,
    images: Float[Array, "n h w c"] | None = None,
    transform: Transform | None = None,
    learning_rate: float = 0.05,
    steps: int = 512,
    progress: Progress | None = None,
    **options,
) -> Ascent:
    """Maximise the objective under random transformations, over spectra in decorrelated colours.

    Args:
      images: to start from; by default a faint random spectrum.
      transform: by default `image_transforms.standard` of the size.
      options: of `ascend`: diverse, diversity_weight, first, penalty, watch.
    """
    parameterization = image_parameterization.fourier(shape)
    drawn, key = jax.random.split(key)
    params = parameterization.init(drawn) if images is None else parameterization.encode(images)
    return ascend(
        f,
        objective,
        parameterization,
        params,
        key,
        transform=transform or image_transforms.standard(min(shape[1:3])),
        optimizer=_adam(learning_rate),
        steps=steps,
        progress=progress,
        **options,
    )


def stretched(images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Return the images with their contrast about mid-grey raised to the full range, as papers do.

    All but one in a hundred of an image's numbers stay in 0..1; no contrast is lowered.
    """
    centred = images - 0.5
    largest = jnp.percentile(jnp.abs(centred), 99, axis=(1, 2, 3), keepdims=True)
    return jnp.clip(0.5 + centred / jnp.clip(2 * largest, 1e-6, 1), 0, 1)


def under_transformations(
    f: F,
    objective: Objective,
    images: Float[Array, "n h w c"],
    transform: Transform,
    key: Array,
    draws: int = 16,
) -> Float[Array, " n"]:
    """Return the objective's mean over draws of a transform: what of a score is robust."""

    @jax.jit
    def score(f, key):
        return objective(f(transform(key, images)))

    f = as_partial(f)
    return sum(score(f, jax.random.fold_in(key, i)) for i in range(draws)) / draws


def _normalized_by_image() -> optax.GradientTransformation:
    """Return the scaling of each image's gradient to norm 1."""

    def update(gradients, state, params=None):
        def scale(g):
            norm = jnp.sqrt(jnp.sum(g**2, axis=tuple(range(1, g.ndim)), keepdims=True))
            return g / jnp.maximum(norm, 1e-12)

        return jax.tree.map(scale, gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
