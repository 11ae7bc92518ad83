"""Incremental inference equals inference of the patched images, and computes less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import cnn_jax
from cnn_jax import ops
from cnn_jax.programs.flops import multiply_adds
from cnn_jax.programs.incremental import Grid, patched, plain_values

pytestmark = pytest.mark.usefixtures("float64")

# Rows and columns at which patches of 3x2 pixels start in images of 14x13; some reach beyond.
GRID = Grid((0, 5, 12), (0, 4, 9, 12), (3, 2))


def conv(x, size=3, features=4, groups=1, **settings):
    sizes = (size, size, x.shape[-1] // groups, features)
    return ops.conv(
        x, jnp.cos(jnp.arange(np.prod(sizes))).reshape(sizes), groups=groups, **settings
    )


def normalized(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-3)


def excited(x):
    return x * jax.nn.sigmoid(x.mean(axis=(1, 2), keepdims=True))


def shuffled(x):
    n, h, w, c = x.shape
    return x.reshape(n, h, w, 2, c // 2).swapaxes(3, 4).reshape(x.shape)


# What is between two convolutions.
FUNCTIONS = {
    "nothing": lambda x: x,
    "a stride": lambda x: conv(x, 5, stride=2),
    "an even kernel's stride": lambda x: conv(x, 2, stride=(3, 2), padding=[(1, 0), (0, 2)]),
    "one pixel of four": lambda x: conv(x, 1, stride=2),
    "a dilation": lambda x: conv(x, dilation=2),
    "groups": lambda x: conv(x, groups=2),
    "a depthwise kernel": lambda x: conv(x, groups=4),
    "a crop": lambda x: conv(x, padding=[(-1, 1), (2, -2)]),
    "max pooling": lambda x: ops.max_pool(x, 3, 2, padding=1),
    "mean pooling": lambda x: ops.avg_pool(x, 3, 2, padding=1, count_padding=False),
    "overhanging pooling": lambda x: ops.max_pool(x, 2, 2, ceil_mode=True),
    "an activation": lambda x: jax.nn.silu(x) + jax.nn.gelu(x) + jnp.clip(x, 0, 6),
    "a sum of unequal reach": lambda x: conv(x, 5) + conv(x, 1),
    "a sum with the whole": lambda x: x + excited(x),
    "branches": lambda x: jnp.concatenate([conv(x, 1), conv(x, 5), x], axis=-1),
    "halves": lambda x: sum(jnp.split(x, 2, axis=-1)),
    "one of the channels": lambda x: x[..., 1:2],
    "a bias by the place": lambda x: x + jnp.sin(jnp.arange(14.0))[:, None, None],
    "response normalization": lambda x: ops.local_response_norm(x, 3),
    "layer normalization": normalized,
    "a dense layer by the pixel": lambda x: x @ jnp.cos(jnp.arange(20.0)).reshape(4, 5),
    "zeros around": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1.5),
    "a cut": lambda x: x[:, 2:, 1:-3],
    "every second pixel": lambda x: x[:, ::2, ::2],
    "a mean over places": excited,
    "mixed channels": shuffled,
    "turned axes": lambda x: x.swapaxes(1, 2),
    "a jitted part": jax.jit(lambda x: jax.nn.relu(conv(x))),
    "a checkpointed part": jax.checkpoint(conv),
}


def outputs(f, shape=(14, 13), grid=GRID, channels=3):
    """f of the image with the patch at each place: by increments, and of the whole images."""
    rng = np.random.default_rng(0)
    image, fill = rng.normal(size=(2, 1, *shape, channels))
    rows, columns = (each.ravel() for each in np.indices((len(grid.rows), len(grid.columns))))
    whole = []
    for row, column in zip(rows, columns, strict=True):
        top, left = grid.rows[row], grid.columns[column]
        inside = (slice(None), slice(top, top + grid.size[0]), slice(left, left + grid.size[1]))
        whole.append(image.copy())
        whole[-1][inside] = fill[inside]
    kept = plain_values(f, image, fill, grid)
    ours = patched(f, image, fill, kept, grid, rows, columns)
    return ours, jax.jit(f)(np.concatenate(whole))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_patched_outputs_are_those_of_the_patched_images(name):
    def f(x):
        return conv(FUNCTIONS[name](conv(x)), features=2)

    ours, whole = outputs(Partial(f))
    np.testing.assert_allclose(ours, whole, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("size", [(14, 13), (1, 1), (14, 1)])
def test_a_patch_of_any_size_will_do(size):
    ours, whole = outputs(Partial(lambda x: conv(conv(x))), grid=Grid((0,), (0,), size))
    np.testing.assert_allclose(ours, whole, rtol=1e-12, atol=1e-11)


def classifier(name, size):
    model = cnn_jax.create_model(name, num_classes=5)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return Partial(model.apply, variables)


NETWORKS = [
    "lenet5",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "resnet20",
            "resnet18",
            "alexnet",
            "googlenet",
            "densenet121",
            "mobilenet_v2",
            "convnext_tiny",
        )
    ),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_answer_as_to_the_patched_images(name):
    size = 96 if name == "alexnet" else 64
    grid = Grid((0, 24, size - 4), (8, 40), (8, 8))
    ours, whole = outputs(classifier(name, size), (size, size), grid)
    np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6 * np.abs(whole).max())


def test_a_small_patch_costs_a_resnet_half():
    """ResNet-18 at 224 pixels, squares of 16 covered: .52 of the multiply-adds."""
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    model = cnn_jax.create_model("resnet18")
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    f, grid = Partial(model.apply, variables), Grid((0, 96), (0, 96), (16, 16))
    kept = jax.eval_shape(lambda *args: plain_values(*args, grid), f, image, image)
    indices = jax.ShapeDtypeStruct((4,), jnp.int32)

    def increments(f, image, fill, kept, rows, columns):
        return patched(f, image, fill, kept, grid, rows, columns)

    arguments = (f, image, image, kept, indices, indices)
    cost = multiply_adds(jax.make_jaxpr(increments)(*arguments))
    whole = multiply_adds(jax.make_jaxpr(lambda f, image: f(image))(f, image))
    assert cost / 4 < 0.55 * whole
