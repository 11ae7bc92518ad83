"""The CPU's forms of pooling against XLA's own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops


def xlas(x, size, stride, pairs):
    return jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        (1, size, size, 1),
        (1, stride, stride, 1),
        [(0, 0), *pairs, (0, 0)],
    )


@pytest.mark.parametrize(
    ("size", "stride", "pairs"),
    [
        (3, 2, [(1, 1), (1, 1)]),
        (2, 2, [(0, 0), (0, 1)]),
        (3, 1, [(0, 2), (1, 0)]),
        (2, 3, [(0, 2), (1, 0)]),  # with pixels that no window meets
        (4, 3, [(3, 1), (2, 3)]),
    ],
)
def test_maxima_and_gradient_are_xlas_where_values_are_equal_too(size, stride, pairs):
    x = np.random.default_rng(0).integers(0, 4, size=(2, 9, 8, 3)).astype(float)

    @partial(jax.jit, static_argnums=0)
    def results(pool):
        out, pull_back = jax.vjp(pool, x)
        return out, pull_back(jnp.cos(jnp.arange(out.size)).reshape(out.shape))[0]

    ours = results(lambda x: ops.max_pool(x, size, stride, pairs))
    theirs = results(lambda x: xlas(x, size, stride, pairs))
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(ours_, theirs_, rtol=1e-14, atol=1e-14)


def test_cropped_pixels_get_no_gradient():
    x = np.random.default_rng(0).normal(size=(1, 9, 8, 2))

    def cropped(x):
        return ops.max_pool(x[:, 1:, :-2], 3, 2, [(0, 0), (1, 0)])

    gradients = (
        jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())(x)
        for pool in (cropped, lambda x: ops.max_pool(x, 3, 2, [(-1, 0), (1, -2)]))
    )
    np.testing.assert_array_equal(*gradients)


def test_what_is_not_a_number_stays_so():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 0].set(jnp.nan)
    assert jnp.isnan(ops.max_pool(x, 2)).ravel().tolist() == [True, False, False, False]


@pytest.mark.parametrize(("platform", "plain"), [("cpu", False), ("tpu", True), ("cuda", True)])
def test_other_platforms_take_xlas_own(platform, plain):
    traced = jax.jit(lambda x: ops.max_pool(x, 3, 2)).trace(jnp.zeros((1, 9, 9, 2)))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("reduce_window" in program) == plain


def test_a_pool_of_the_whole_map_is_one_instruction():
    jaxpr = jax.make_jaxpr(lambda x: ops.max_pool(x, 40))(jnp.zeros((1, 40, 40, 2)))
    assert len(jaxpr.eqns) < 5


def test_the_mean_over_all_positions_and_its_gradient_are_xlas():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
    slope = np.random.default_rng(1).normal(size=(2, 3))
    ours, pull_back = jax.vjp(ops.global_avg_pool, x)
    theirs, their_pull_back = jax.vjp(lambda x: x.mean(axis=(1, 2)), x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(pull_back(slope), their_pull_back(slope), rtol=1e-14, atol=1e-14)


def test_the_mean_of_half_precision_is_summed_in_float32():
    x = jnp.full((1, 64, 64, 1), 1.01, jnp.bfloat16)  # its own sum would stop at 256
    assert ops.global_avg_pool(x) == x[:, 0, 0]
    assert ops.global_avg_pool(x).dtype == jnp.bfloat16


def test_the_mean_leaves_the_convolution_before_it_alone():
    """XLA draws it into one fusion with a plain sum of a map of this size."""
    x, kernel = (jnp.ones(s, jnp.float32) for s in ((1, 14, 14, 128), (3, 3, 128, 128)))
    net = jax.jit(lambda x, kernel: ops.global_avg_pool(jax.nn.relu(ops.conv(x, kernel))))
    program = net.lower(x, kernel).compile().as_text().partition("ENTRY")[2]
    assert program.count(" convolution(") == 1
