"""Networks with drawn weights through which photographs reach the outputs, as after training.

A network as it is initialised may hardly depend on some of its weights: residual branches and
heads start at zero, batch norms do nothing, and what is drawn small vanishes with depth. Here
kernels are drawn as He et al. 2015 by their inputs, everything else off its first value, and batch
norms have the statistics of the photographs, so that every weight has its share in the outputs.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax import create_model
from cnn_jax.data import decoding, preprocessing, sample_photographs
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.models.registry import MODELS, Model, Variables
from cnn_jax.trained import Trained


def photographs(size: int, channels: int) -> Float[np.ndarray, "n size size c"]:
    """Return the sample photographs, in 0..1."""
    files = [each.path for each in sample_photographs.PHOTOGRAPHS]
    images = [
        preprocessing.preprocess(decoding.read(file, channels), Preprocessing(size))
        for file in files
    ]
    return np.stack([preprocessing.to_array(each) for each in images]).astype(np.float32) / 255


def network(name: str, size: int) -> Trained:
    """Return the named network for images of this size; the weights are the same every time."""
    model, entry = create_model(name), MODELS[name]
    mean, std = entry.mean[: model.channels], entry.std[: model.channels]
    images = (photographs(size, model.channels) - np.float32(mean)) / np.float32(std)
    variables = _drawn(jax.eval_shape(model.init, jax.random.key(0), images))
    if model.task != "detection" and "batch_stats" in variables:
        variables = {**variables, "batch_stats": _statistics(model, variables, images)}
    return Trained(model, variables, Preprocessing(size), mean, std, (), {}, None)


def _drawn(shapes: Variables) -> Variables:
    generator = np.random.default_rng(0)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    norms = {path[1:-1] for path, _ in leaves if path[-1].key == "var"}

    def draw(path, leaf):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return generator.standard_normal(leaf.shape, "float32") * np.sqrt(2 / fan_in, dtype="f")
        # The bias of a batch norm is about one too: a ReLU that cuts half of the values makes alike
        # images less alike, and of rounding in the first of many layers a difference in the last.
        centred = path[-1].key == "bias" and path[1:-1] not in norms
        if path[-1].key == "mean" or centred:
            return 0.1 * generator.standard_normal(leaf.shape, "float32")
        return generator.uniform(0.5, 1.5, leaf.shape).astype("float32")

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _statistics(model: Model, variables: Variables, images: Float[Array, "n h w c"]) -> Variables:
    """Return the images' own batch statistics.

    A step takes running statistics from r to m r + (1 - m) s; from r = 0 and r = 1 follows s,
    whatever the norms' momentum m.
    """

    # nothing depends on their last digits, and it compiles in half of the time
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def after(params, images, start):
        running = jax.tree.map(lambda x: jnp.full_like(x, start), variables["batch_stats"])
        values = {"params": params, "batch_stats": running}
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(values, images, train=True, mutable=["batch_stats"], rngs=rngs)[1]

    zero, one = (after(variables["params"], images, start)["batch_stats"] for start in (0.0, 1.0))
    return jax.tree.map(lambda zero, one: np.asarray(zero / (1 - (one - zero))), zero, one)
