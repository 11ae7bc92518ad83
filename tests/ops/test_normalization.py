"""Normalisation against PyTorch's and the papers' formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.runtime import parallel
from tests.ops.test_convolution import CLOSE


@pytest.mark.parametrize("size", [3, 4, 5])
def test_local_response_normalisation_equals_torchs(torch_cases, size):
    case = torch_cases[f"lrn/{size}"]
    out = ops.local_response_norm(case["x"], **case["settings"], mean_of_squares=True)
    np.testing.assert_allclose(out, case["out"], **CLOSE)


def test_local_response_normalisation_is_the_papers_by_default():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)) * 50
    expected = np.empty_like(x)
    for i in range(8):
        near = x[..., max(0, i - 2) : min(7, i + 2) + 1]
        expected[..., i] = x[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(ops.local_response_norm(x), expected, **CLOSE)


def test_the_sum_with_the_papers_alpha_is_the_mean_with_five_times_it():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)) * 50
    np.testing.assert_allclose(
        ops.local_response_norm(x, alpha=1e-4),
        ops.local_response_norm(x, alpha=5e-4, mean_of_squares=True),
        **CLOSE,
    )


def test_batch_moments_and_normalize_give_zero_mean_and_unit_variance():
    x = np.random.default_rng(0).normal(3, 2, size=(8, 5, 5, 4))
    mean, variance = ops.batch_moments(x)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), **CLOSE)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), **CLOSE)
    out = ops.normalize(x, mean, variance, jnp.ones(4), jnp.zeros(4), epsilon=0)
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, **CLOSE)


def far_from_zero(shape, mean=4096.0, deviation=1.0):
    """Channels of which none is centred, in float32."""
    values = np.random.default_rng(0).normal(mean, deviation, shape)
    return (values * np.array([1, -1, 0.01])).astype(np.float32)


SHAPES = [(16, 9, 8, 3), (512, 3), (64, 1, 1, 3), (8, 5, 3), (8, 4, 3, 5, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0, 10, 4096])
def test_the_variance_is_exact_however_far_the_mean_lies_from_zero(shape, mean):
    x = far_from_zero(shape, mean)
    axes, exact = tuple(range(x.ndim - 1)), x.astype(np.float64)
    ours = ops.batch_moments(x)
    np.testing.assert_allclose(ours[0], exact.mean(axes), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours[1], exact.var(axes), rtol=2e-6)


@pytest.mark.parametrize("row", [0, 100, 112, 224])
def test_a_row_unlike_the_others_does_not_spoil_the_variance(row):
    x = far_from_zero((4, 225, 3, 3), mean=1.0, deviation=0.1)
    x[:, row] += 4096
    expected = x.astype(np.float64).var((0, 1, 2))
    np.testing.assert_allclose(ops.batch_moments(x)[1], expected, rtol=2e-5)


@pytest.mark.parametrize("mean", [0, 10, 100])
def test_without_a_shift_less_cancels_than_bfloat16_has_rounded_off(mean):
    values = far_from_zero((16, 9, 8, 3), mean)
    x = jnp.asarray(values, jnp.bfloat16)
    given = np.asarray(x, np.float64)
    rounded_off = np.abs(given.var((0, 1, 2)) - values.astype(np.float64).var((0, 1, 2)))
    found_mean, variance = ops.batch_moments(x, shift=jnp.zeros(3))
    np.testing.assert_allclose(found_mean, given.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)
    assert (np.abs(variance - given.var((0, 1, 2))) <= rounded_off / 5).all()


@pytest.mark.parametrize("mean", [0, 10, 100])
def test_about_a_shift_near_the_mean_the_variance_is_exact_beside_bfloat16s_rounding(mean):
    x = jnp.asarray(far_from_zero((16, 9, 8, 3), mean), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    shift = jnp.asarray(exact.mean((0, 1, 2)) + exact.std((0, 1, 2)), jnp.float32)
    found_mean, variance = ops.batch_moments(x, shift=shift)
    rounding = 2**-9  # of a number of 8 bits
    deviation = exact.std((0, 1, 2))
    assert (np.abs(found_mean - exact.mean((0, 1, 2))) <= rounding / 30 * deviation).all()
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=rounding / 30)


def sharded(x):
    over = parallel.over_mesh(jax.devices())
    return jax.jit(ops.batch_moments)(over.put_batch({"x": x})["x"])


def pmapped(x):
    moments = partial(ops.batch_moments, axis_name="devices")
    parts = jax.pmap(moments, axis_name="devices")(x.reshape(8, -1, *x.shape[1:]))
    return jax.tree.map(lambda leaf: leaf[3], parts)


@pytest.mark.parametrize("over", [sharded, pmapped])
def test_moments_over_devices_are_those_of_the_whole_batch(over):
    """The devices' means lie a deviation apart, as where each has images of one kind."""
    x = far_from_zero((16, 9, 8, 3)) + np.arange(16, dtype=np.float32)[:, None, None, None]
    exact = x.astype(np.float64)
    mean, variance = over(x)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=2e-6)


@pytest.mark.parametrize(("mean", "close"), [(0, 1e-6), (10, 1e-4), (4096, 1e-2)])
def test_gradients_through_the_moments_are_those_of_float64(mean, close):
    """To the roundings of float32 at the mean, in deviations, which a sum of many adds up."""
    x = far_from_zero((16, 9, 8, 3), mean)
    weights = np.random.default_rng(1).normal(size=x.shape)

    def loss(x, scale, offset):
        moments = ops.batch_moments(x)
        return jnp.sum(weights.astype(x.dtype) * ops.normalize(x, *moments, scale, offset))

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    ours = slopes(x, jnp.ones(3), jnp.zeros(3))
    with jax.enable_x64(True):
        exact = slopes(x.astype(np.float64), jnp.ones(3), jnp.zeros(3))
    for one, other in zip(ours, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=close * np.abs(other).max())


@pytest.mark.parametrize("shape", [(8, 5, 4, 6), (16, 7, 6), (32, 6)])
def test_moments_and_normalisation_of_a_product_are_those_of_the_product_made(shape):
    """With all gradients, in float64."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(rng.normal(1, 2, shape)), jnp.asarray(rng.normal(size=(6, 9)))
        scale, offset, weights = (jnp.asarray(rng.normal(size=9)) for _ in range(3))

        def loss(x, kernel, scale, offset, pointwise):
            if pointwise:
                moments = ops.pointwise_moments(x, kernel)
                slope, shift = ops.slope_and_shift(x.dtype, *moments, scale, offset)
                out = ops.pointwise(x, kernel * slope) + shift
            else:
                out = ops.normalize(x @ kernel, *ops.batch_moments(x @ kernel), scale, offset)
            return jnp.sum(weights * jnp.sin(out)), out

        slopes = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True), static_argnums=4)
        arrays = (x, kernel, scale, offset)
        close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
        jax.tree.map(close, slopes(*arrays, True), slopes(*arrays, False))


def test_moments_of_a_product_over_devices_are_those_of_the_whole_batch():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(1, 2, (16, 3, 3, 4)), rng.normal(size=(4, 6))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    moments = partial(ops.pointwise_moments, axis_name="devices")
    mapped = jax.pmap(moments, axis_name="devices", in_axes=(0, None))
    found = mapped(x.reshape(8, 2, 3, 3, 4), kernel)
    product = x.astype(np.float64) @ kernel
    np.testing.assert_allclose(found[0][3], product.mean((0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1][3], product.var((0, 1, 2)), rtol=1e-5)
