"""ReLUs and the rules by which they pass the gradient back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops

X = jnp.array([-2.0, -1, 0, 1, 2, 3])
G = jnp.array([5.0, -5, 7, -1, 4, 0])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("gradient", [0, 0, 0, -1, 4, 0]),  # g where x > 0
        ("guided", [0, 0, 0, 0, 4, 0]),  # g where x > 0 and g > 0
        ("deconvnet", [5, 0, 7, 0, 4, 0]),  # g where g > 0
        (lambda x, g: 10 * g, [50, -50, 70, -10, 40, 0]),  # the caller's own
    ],
    ids=["gradient", "guided", "deconvnet", "own"],
)
def test_the_rule_decides_what_passes_back_and_never_the_value(rule, expected):
    out, backward = jax.vjp(lambda x: ops.relu(x, rule), X)
    np.testing.assert_array_equal(out, [0, 0, 0, 1, 2, 3])
    np.testing.assert_array_equal(backward(G)[0], expected)


@pytest.mark.parametrize("rule", ops.RELU_RULES)
def test_every_rule_works_compiled_batched_and_in_bfloat16(rule):
    def slope(x):
        return jax.grad(lambda x: jnp.sum(ops.relu(x, rule) * jnp.ones_like(x)))(x)

    x = X.astype(jnp.bfloat16)
    assert slope(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(jax.jit(jax.vmap(slope))(x[:, None])[:, 0], slope(x))


def test_the_plain_rule_differentiates_twice_and_forwards():
    def cube(x):
        return ops.relu(x) ** 3

    assert jax.grad(jax.grad(cube))(2.0) == 12
    assert jax.jvp(cube, (2.0,), (1.0,))[1] == 12
