"""NASNet-A."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import apply, init

from cnn_jax import taps
from cnn_jax.models.nasnet import (
    factorized_reduction,
    max_pool,
    nasnet,
    normal_cell,
    reduction_cell,
)
from tests.models.tracing import parameters, shapes, variables


@pytest.mark.parametrize(
    ("name", "trained", "statistics"),
    [
        ("nasnetamobile", 5_289_978, 36_738),  # keras.applications.NASNetMobile
        pytest.param(
            "nasnetalarge", 88_753_150, 196_668, marks=pytest.mark.slow
        ),  # keras.applications.NASNetLarge; timm
        # derived; the paper's table 1 says 3.3M
        pytest.param("nasneta_cifar", 3_346_538, 37_248, marks=pytest.mark.slow),
    ],
)
def test_parameters(name, trained, statistics):
    found = variables(name, image_size=32)
    for collection, expected in (("params", trained), ("batch_stats", statistics)):
        leaves = jax.tree.leaves(found[collection])
        assert sum(math.prod(leaf.shape) for leaf in leaves) == expected


def test_slim_form_has_the_same_parameters():
    assert parameters("nasnetamobile_slim", image_size=32) == 5_289_978


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # figure 2, and the names: N normal cells a stack, P channels at the end
        (
            "nasnetamobile",
            {"stem": (111, 32), "stack1_cell4": (28, 264), "stack3_cell4": (7, 1056)},
        ),
        pytest.param(
            "nasnetalarge",
            {"stem": (165, 96), "stem_cell2": (42, 336), "stack3_cell6": (11, 4032)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "nasneta_cifar",
            {"stem": (32, 96), "stack1_cell6": (32, 192), "stack3_cell6": (8, 768)},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_sizes(name, expected):
    found = shapes(name)
    assert {path: (found[path][0], found[path][2]) for path in expected} == expected


def modules(cell, **settings):
    """Return the names of the parts of a cell that have parameters, for two inputs of one size."""
    x = jax.ShapeDtypeStruct((1, 8, 8, 8), "float32")
    cell = functools.partial(cell, features=4, drop_rate=0.0, **settings)
    return set(jax.eval_shape(init(cell), jax.random.key(0), x, x)[1]["params"])


def test_the_cells_are_figure_4s():
    # the separable convolutions of the five blocks
    normal = {"block1_left", "block1_right", "block2_left", "block2_right", "block5_left"}
    assert modules(normal_cell) == normal | {"input", "previous"}
    reduction = {"block1_left", "block1_right", "block2_right", "block3_right", "block5_left"}
    pools = {"count_padding": False, "pad_zeros": False}
    assert modules(reduction_cell, **pools) == reduction | {"input", "previous"}


def test_the_cell_after_a_reduction_looks_past_it_in_the_large_network():
    """figure 2 shows the skip; how far back it goes differs between the released networks."""
    network = functools.partial(nasnet, num_classes=2, repeats=1, penultimate=96, stem=8)
    images = jnp.ones((1, 32, 32, 3))
    for skip, channels in ((False, 24), (True, 8)):
        build = init(functools.partial(network, skip_reduction_input=skip))
        _, found = jax.eval_shape(build, jax.random.key(0), images)
        path = found["params"]["stack2_cell1"]["previous_reduced"]["path1"]["kernel"]
        assert path.shape[2] == channels


def test_factorized_reduction_sees_even_and_odd_pixels():
    x = jnp.zeros((1, 5, 5, 2)).at[0, 2, 2].set(1.0).at[0, 3, 3].set(2.0)
    block = functools.partial(factorized_reduction, features=2)
    variables = {
        "params": {
            "path1": {"kernel": jnp.ones((1, 1, 2, 1))},
            "path2": {"kernel": jnp.ones((1, 1, 2, 1))},
            "bn": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
        },
        "batch_stats": {"bn": {"mean": jnp.zeros(2), "var": jnp.ones(2)}},
    }
    y = apply(block)(variables, x)
    assert y.shape == (1, 3, 3, 2)
    np.testing.assert_allclose(y[0, 1, 1], [2, 4], rtol=1e-4)
    assert np.count_nonzero(y) == 2


def test_keras_lets_the_padding_win_a_maximum():
    x = -jnp.ones((1, 4, 4, 1))
    found = {flag: apply(functools.partial(max_pool, pad_zeros=flag))({}, x) for flag in (0, 1)}
    # an even size pads after: the last window of each axis sees zeros
    np.testing.assert_array_equal(found[0][0, :, :, 0], [[-1, -1], [-1, -1]])
    np.testing.assert_array_equal(found[1][0, :, :, 0], [[-1, 0], [0, 0]])


def test_branches_are_dropped_in_training_only():
    cell = functools.partial(normal_cell, features=2, drop_rate=0.5)
    x = jax.random.normal(jax.random.key(1), (64, 4, 4, 2))
    variables = jax.jit(init(functools.partial(cell, drop_rate=0.0)))(jax.random.key(0), x, x)[1]

    @functools.partial(jax.jit, static_argnums=0)
    def dropped(train):
        store = {}
        call = apply(cell, flags={"tap": taps.record(store), "train": train})
        call(variables, x, x, rngs={"dropout": jax.random.key(2)})
        return jnp.all(store["block1_left_drop"] == 0, axis=(1, 2, 3)).sum()

    assert 18 <= dropped(True) <= 46
    assert dropped(False) == 0
