"""Fooling images: what means nothing to us and is certain to the network.

By gradient, and by evolution, which needs none: MAP-Elites, one elite a class, as in Nguyen,
Yosinski & Clune 2015, "Deep neural networks are easily fooled". Its mutations are those of their
direct encoding, the squares by which Andriushchenko et al. 2020 search at random, or waves within a
window, of which Co et al. 2019 make the Gabor noise of "Procedural noise adversarial examples".
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from cnn_jax.errors import unknown
from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import Progress, repeat
from cnn_jax.visualize.minimize import minimize

F = Callable[[Float[Array, "n h w c"]], Float[Array, "n classes"]]  # pixels in 0..1 -> logits


class Fooling(NamedTuple):
    """images: in 0..1.  confidence: softmax of the class that was aimed at.
    history: the confidences by step.
    """

    images: Float[Array, "n h w c"]
    confidence: Float[Array, " n"]
    history: Float[Array, "steps n"]


def confidences(
    f: F, images: Float[Array, "n h w c"], targets: Int[Array, " n"]
) -> Float[Array, " n"]:
    """Return the softmax of the target class of each image."""
    probabilities = jax.nn.softmax(f(images), axis=-1)
    return jnp.take_along_axis(probabilities, targets[:, None], axis=-1)[:, 0]


def by_gradient(
    f: F,
    targets: Int[Array, " n"],
    start: Float[Array, "n h w c"],
    *,
    learning_rate: float = 0.01,
    steps: int = 100,
    progress: Progress | None = None,
) -> Fooling:
    """Return images that are taken for the targets, by descent of the cross-entropy.

    Started from noise they are 'synthetic' images; from a photograph, 'fantasy' images, in which
    the class appears. The image of highest confidence along the way is returned.

    Args:
      start: in 0..1, where the pixels are kept.
    """
    targets = jnp.asarray(targets)
    found = minimize(
        _cross_entropy,
        jnp.asarray(start),
        None,
        *(as_partial(f), targets),
        steps=steps,
        optimizer=optax.adam(learning_rate),
        project=_valid,
        progress=progress,
    )
    confidence = jax.jit(confidences)(as_partial(f), found.params, targets)
    return Fooling(found.params, confidence, jnp.exp(-found.history))


def _cross_entropy(images, _, f, targets):
    return optax.softmax_cross_entropy_with_integer_labels(f(images), targets)


def _valid(images):
    return jnp.clip(images, 0, 1)


def by_evolution(
    f: F,
    classes: int,
    shape: tuple[int, int, int],
    key: Array,
    *,
    generations: int = 2000,
    children: int = 64,
    mutation: str = "pixels",
    targets: Int[Array, " n"] | None = None,
    progress: Progress | None = None,
) -> Fooling:
    """Return an image for each target, found by mutation and selection alone.

    Each generation mutates elites that it draws by what their confidence lacks, so that images go
    to the classes that are hard; a child takes the place of each elite in whose class the network
    is less sure of it. f is evaluated, never differentiated.

    Args:
      shape: h, w, c.
      children: images evaluated in a generation.
      mutation: "pixels", from uniform noise: a tenth of the pixels change, and half as many after
        every half of the run; "squares", from grey: all of a rectangle gets lighter or darker, each
        channel by its own amount; "waves", from grey: a stripe or several, of any direction, are
        laid over a rectangle with soft edges; or "mixed": of each child one of these two, by lot.
        Rectangles shrink from about a fifth of the image's side to three hundredths, and reach
        networks of large images that changed pixels do not.
      targets: the classes; None: all.

    Returns:
      The images of the targets, in their order.

    Raises:
      UsageError: an unknown mutation.
    """
    if mutation not in MUTATIONS:
        raise unknown("mutation", mutation, MUTATIONS)
    targets = jnp.arange(classes) if targets is None else jnp.asarray(targets)
    key, drawn = jax.random.split(key)
    start, generation = MUTATIONS[mutation]
    elites = start(drawn, (len(targets), *shape))
    scores = jnp.full(len(targets), -jnp.inf, elites.dtype)
    history = jnp.zeros((generations, len(targets)), scores.dtype)
    places = jnp.zeros(children)  # its length is the number of children
    state = repeat(
        generation, (elites, scores, history), generations,
        *(as_partial(f), key, places, targets), progress=progress,
    )  # fmt: skip
    elites, scores, history = state
    return Fooling(elites, jnp.exp(scores), jnp.exp(history))


def _generation(mutated, i, state, f, key, places, targets):
    elites, scores, history = state
    children, generations = len(places), len(history)
    lot, *keys = jax.random.split(jax.random.fold_in(key, i), children + 1)
    lacking = 1.05 - jnp.exp(scores)  # what is certain stays in the lot: its children suit others
    parents = jax.random.choice(lot, len(elites), (children,), p=lacking / jnp.sum(lacking))
    offspring = jax.vmap(mutated, (0, 0, None))(jnp.stack(keys), elites[parents], i / generations)
    reached = jax.nn.log_softmax(f(offspring), axis=-1)[:, targets]  # [children, targets]
    better = jnp.max(reached, axis=0) > scores
    elites = jnp.where(better[:, None, None, None], offspring[jnp.argmax(reached, axis=0)], elites)
    scores = jnp.maximum(scores, jnp.max(reached, axis=0))
    return elites, scores, history.at[i].set(scores)


def _pixels(key, image, done):
    """Change some pixels, of which there are fewer the more of the run is done."""
    where, change = jax.random.split(key)
    changed = jax.random.bernoulli(where, 0.1 * 0.5 ** (2 * done), image.shape)
    change = 0.15 * jax.random.normal(change, image.shape)
    return jnp.clip(image + jnp.where(changed, change, 0), 0, 1)


def _squares(key, image, done):
    """Change all of a rectangle."""
    *keys, change = jax.random.split(key, 4)
    corner, sides = _rectangle(keys, image.shape[:2], done)
    rows, columns = (
        (jnp.arange(n) >= first) & (jnp.arange(n) < first + side)
        for n, first, side in zip(image.shape[:2], corner, sides, strict=True)
    )
    change = jax.random.uniform(change, image.shape[2:], minval=-1)
    inside = rows[:, None, None] & columns[None, :, None]
    return jnp.clip(image + jnp.where(inside, change, 0), 0, 1)


def _waves(key, image, done):
    """Add up to three periods of a wave within a rectangle with soft edges."""
    *keys, change, wave = jax.random.split(key, 5)
    corner, sides = _rectangle(keys, image.shape[:2], done)
    y, x = (  # from the middle, in sides
        (jnp.arange(n) - first) / side - 0.5
        for n, first, side in zip(image.shape[:2], corner, sides, strict=True)
    )
    turn, periods, phase = jax.random.uniform(wave, (3,)) * jnp.array([jnp.pi, 3, 1])
    along = jnp.sin(turn) * y[:, None] + jnp.cos(turn) * x
    wave = jnp.exp(-2 * (y[:, None] ** 2 + x**2)) * jnp.cos(2 * jnp.pi * (periods * along + phase))
    change = jax.random.uniform(change, image.shape[2:], minval=-1)
    return jnp.clip(image + wave[..., None] * change, 0, 1)


def _mixed(key, image, done):
    """Change all of a rectangle, or lay waves over one."""
    lot, key = jax.random.split(key)
    by_square, by_wave = _squares(key, image, done), _waves(key, image, done)
    return jnp.where(jax.random.bernoulli(lot), by_square, by_wave)


def _rectangle(keys, shape, done):
    """Return a rectangle's corner and sides, which are smaller the more of the run is done."""
    size, aspect, place = keys
    shape = jnp.array(shape)
    share = 0.2 * (0.03 / 0.2) ** done * jnp.exp(0.7 * jax.random.normal(size))
    stretched = jnp.exp(jax.random.uniform(aspect, minval=-0.7, maxval=0.7))
    sides = jnp.maximum(share * shape * jnp.array([stretched, 1 / stretched]), 1)
    return jax.random.uniform(place, (2,)) * (shape + sides) - sides, sides


def _grey(_, shape):
    return jnp.full(shape, 0.5)


# where evolution starts, and its generation
MUTATIONS = {
    "pixels": (jax.random.uniform, partial(_generation, _pixels)),
    "squares": (_grey, partial(_generation, _squares)),
    "waves": (_grey, partial(_generation, _waves)),
    "mixed": (_grey, partial(_generation, _mixed)),
}
