"""Which blocks of a chain are alike, and may be one loop; its values are in test_layers."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax.core import init

from cnn_jax import layers, looping


def block(scope, x, *, features=4, scale=1.0):
    return scale * scope.child(layers.dense, "dense")(x, features)


def wide(scope, x):
    return scope.child(layers.dense, "dense")(x, 8)


def noisy(scope, x):
    return block(scope, x) + jax.random.normal(scope.make_rng("dropout"), x.shape)


def scopes_of(blocks, **flags):
    """The scopes of drawn blocks, and the array that they were drawn for."""
    x = jnp.ones((2, 4))
    found = []

    def network(scope, x):
        for i, body in enumerate(blocks):
            scope.child(body, f"block{i}")(x)
        scope = scope.rewound()
        scope.flags = flags
        found.extend(scope.push(f"block{i}") for i in range(len(blocks)))
        return x

    init(network)({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)
    return found, x


def lengths(blocks, **flags):
    scopes, _ = scopes_of(blocks, **flags)
    return [len(run) for run, _ in looping.alike(scopes, blocks)]


def test_a_run_is_of_one_function_with_one_setting_and_parameters_of_one_shape():
    scaled = partial(block, scale=2.0)
    assert lengths([block, block, scaled, partial(block, scale=2.0), block]) == [2, 2, 1]
    assert lengths([block, partial(block, features=8)]) == [1, 1]


def test_a_block_whose_parameters_stay_is_not_like_one_whose_parameters_move():
    def stays(path):
        return path.startswith("block2/")

    assert lengths([block] * 5, stays=stays) == [2, 1, 2]


@pytest.mark.parametrize(
    ("body", "count", "possible"),
    [(block, 4, True), (block, 3, False), (wide, 4, False), (noisy, 4, False)],
)
def test_a_loop_is_of_four_blocks_or_more_that_keep_the_shape_and_draw_nothing(
    body, count, possible
):
    scopes, x = scopes_of([body] * count)
    assert looping.can_loop(scopes, body, x) is possible
