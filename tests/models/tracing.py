"""What the models' tests ask of a model, mostly by tracing alone."""

import functools
import math

import jax
import numpy as np

from cnn_jax import create_model, taps


def variables(name: str, image_size: int | None = None, **options):
    """Return the shapes of the named model's variables at its native size (or image_size)."""
    return _traced(name, image_size, tuple(options.items()))


@functools.cache
def _traced(name, image_size, options):
    model = create_model(name, **dict(options))
    size = image_size or model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, model.channels), "float32")
    return jax.eval_shape(model.init, jax.random.key(0), images)


def parameters(name: str, image_size: int | None = None, **options) -> int:
    """Return how many trainable parameters the named model has."""
    params = variables(name, image_size, **options)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def shapes(name: str, image_size: int | None = None, **options) -> dict[str, tuple[int, ...]]:
    """Return path -> shape, batch left out, of every activation of the named model."""
    model = create_model(name, **options)
    size = image_size or model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, model.channels), "float32")
    outputs = taps.activation_shapes(model.apply, variables(name, size, **options), images)
    return {path: output.shape[1:] for path, output in outputs.items()}


def activations(model, variables, images, *paths, **options):
    """Return the values of these activations, compiled as one function."""

    @jax.jit
    def run(variables, images):
        return taps.activations(model.apply, variables, images, paths, **options)[1]

    return tuple(run(variables, images)[path] for path in paths)


def drawn(shapes, seed: int = 0):
    """Return random float32 variables of these shapes; drawing them in JAX takes far longer."""
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "var":
            return generator.uniform(0.5, 1.5, leaf.shape).astype("float32")
        return 0.1 * generator.standard_normal(leaf.shape, "float32")

    return jax.tree_util.tree_map_with_path(draw, shapes)
