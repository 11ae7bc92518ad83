"""Fooling images: what means nothing to us and is certain to the network.

By gradient, and by evolution, which needs none: MAP-Elites, one elite a class, as in Nguyen,
Yosinski & Clune 2015, "Deep neural networks are easily fooled", with their direct encoding, or of a
coarse grid that is enlarged, the simplest encoding whose images are patterns.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

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
    mutation_rate: float = 0.1,
    deviation: float = 0.15,
    cells: int | None = None,
    targets: Int[Array, " n"] | None = None,
    progress: Progress | None = None,
) -> Fooling:
    """Return an image for each class, found by mutation and selection alone.

    Each generation mutates randomly chosen elites; a child takes the place of every class's elite
    of which the network is less sure than of it. f is evaluated, never differentiated.

    Args:
      shape: h, w, c.
      children: images evaluated in a generation.
      mutation_rate: the share of pixels that a mutation changes; halved every half of the run.
      deviation: of the normal change.
      cells: rows and columns of what is mutated, which is enlarged to the image. Of large images
        chance improves patterns sooner than pixels; None: pixels.
      targets: the classes that matter, whose elites are every second child's parents; the others'
        elites are stones to step on. None: all.

    Returns:
      The images of the targets, in their order.
    """
    h, w, c = shape
    key, drawn = jax.random.split(key)
    elites = jax.random.uniform(drawn, (classes, cells or h, cells or w, c))
    targets = jnp.arange(classes) if targets is None else jnp.asarray(targets)
    f = Partial(partial(_of_grids, (h, w)), as_partial(f)) if cells else as_partial(f)
    found = [
        jax.jit(_probabilities)(f, elites[i : i + children]) for i in range(0, classes, children)
    ]
    scores = jnp.diag(jnp.concatenate(found))
    history = jnp.zeros((generations, len(targets)), scores.dtype)
    sizes = jnp.zeros(children), jnp.float32(mutation_rate), jnp.float32(deviation)
    state = repeat(
        _generation, (elites, scores, history), generations, *(f, key, sizes, targets),
        progress=progress,
    )  # fmt: skip
    elites, scores, history = state
    images = _enlarged((h, w), elites[targets]) if cells else elites[targets]
    return Fooling(images, scores[targets], history)


def _of_grids(size, f, grids):
    return f(_enlarged(size, grids))


def _enlarged(size, grids):
    images = jax.image.resize(grids, (len(grids), *size, grids.shape[-1]), "cubic")
    return jnp.clip(images, 0, 1)


def _probabilities(f, images):
    return jax.nn.softmax(f(images), axis=-1)


def _generation(i, state, f, key, sizes, targets):
    elites, scores, history = state
    places, mutation_rate, deviation = sizes
    choose, where, change = jax.random.split(jax.random.fold_in(key, i), 3)
    rate = mutation_rate * 0.5 ** (2 * i / len(history))
    chosen = jax.random.randint(choose, places.shape, 0, len(elites))
    if len(targets) < len(elites):
        chosen = chosen.at[::2].set(targets[chosen[::2] % len(targets)])
    parents = elites[chosen]
    changed = jax.random.bernoulli(where, rate, parents.shape)
    change = deviation * jax.random.normal(change, parents.shape)
    offspring = jnp.clip(parents + jnp.where(changed, change, 0), 0, 1)
    reached = _probabilities(f, offspring)  # [children, classes]
    best = jnp.argmax(reached, axis=0)
    better = jnp.max(reached, axis=0) > scores
    elites = jnp.where(better[:, None, None, None], offspring[best], elites)
    scores = jnp.where(better, jnp.max(reached, axis=0), scores)
    return elites, scores, history.at[i].set(scores[targets])
