"""Convolutions in the body of a loop: the same values and gradients, in the form of the CPU's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops

NUMBERS = ("NHWC", "HWIO", "NHWC")
SETTINGS = [
    ((7, 8), (3, 3), {"padding": "same"}),
    ((7, 8), (3, 2), {"stride": 2, "padding": [(1, 0), (2, 1)]}),
    ((9, 8), (1, 1), {"stride": (2, 3), "padding": 0}),
    ((9, 9), (3, 3), {"dilation": 2, "padding": "same"}),
    ((9, 9), (3, 3), {"groups": 2}),
    ((9, 9), (3, 3), {"groups": 4, "stride": 2}),
]


def drawn(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("size", "kernel", "settings"), SETTINGS)
def test_values_and_gradients_are_those_outside_of_a_loop(size, kernel, settings, float64):
    x = drawn((2, *size, 4))
    k = drawn((*kernel, 4 // settings.get("groups", 1), 8), 1)

    def of(x, k):
        out = ops.conv(x, k, **settings)
        return (out * drawn(out.shape, 2)).sum() + (out**3).sum()

    def inside(x, k):
        with ops.inside_loop():
            return of(x, k)

    def plain(x, k):
        with ops.portable():
            return of(x, k)

    both = [jax.value_and_grad(f, (0, 1))(x, k) for f in (inside, plain)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), *both)


def test_a_loops_gradients_are_convolutions_that_the_cpu_has_kernels_for():
    def looped(x, kernels):
        def body(x, kernel):
            with ops.inside_loop():
                return jnp.tanh(ops.conv(x, kernel)), None

        return jax.lax.scan(body, x, kernels)[0].sum()

    gradients = jax.jit(jax.grad(looped, (0, 1)))
    program = gradients.lower(jnp.ones((2, 8, 8, 32)), jnp.ones((5, 3, 3, 32, 32))).compile()
    labels = re.findall(r" convolution\(.*dim_labels=([\w>-]+)", program.as_text())
    assert len(labels) >= 3  # in the loop forwards, and both gradients in the loop backwards
    assert set(labels) == {"b01f_01io->b01f"}
