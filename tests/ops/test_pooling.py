"""Pooling against PyTorch's, SciPy's and the lecture's numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cnn_jax import UsageError, ops
from tests.ops.test_convolution import CLOSE

POOLS = ["plain", "overlapping", "ceil", "ceil_padded", "ceil_dropped", "ceil_uneven"]
SLIDE = jnp.array([[0, 4, 7, 8], [9, 2, 4, 5], [6, 7, 3, 4], [8, 2, 1, 5]])


def torch_settings(settings):
    """PyTorch's numbers of zeros as (before, after) pairs."""
    pad = ops.geometry.per_axis(settings["padding"], 2)
    return settings | {"padding": [(p, p) for p in pad]}


@pytest.mark.parametrize("name", POOLS)
def test_maxima_their_places_and_gradient_equal_torchs(torch_cases, name):
    x, case = torch_cases["pool"]["x"], torch_cases[f"pool/{name}"]
    settings = torch_settings(case["settings"])
    out, vjp = jax.vjp(lambda x: ops.max_pool(x, **settings), x)
    np.testing.assert_array_equal(out, case["max"])
    np.testing.assert_allclose(vjp(jnp.asarray(case["g"]))[0], case["gradient"], **CLOSE)
    pool = jax.jit(partial(ops.max_pool_with_argmax, **settings))
    (values, index), vjp = jax.vjp(pool, x)
    np.testing.assert_array_equal(values, case["max"])
    np.testing.assert_array_equal(index, case["index"])
    no_slope = np.zeros(index.shape, jax.dtypes.float0)
    np.testing.assert_allclose(vjp((case["g"], no_slope))[0], case["gradient"], **CLOSE)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("count_padding", [True, False])
def test_averages_equal_torchs(torch_cases, name, count_padding):
    x, case = torch_cases["pool"]["x"], torch_cases[f"pool/{name}"]
    out = ops.avg_pool(x, **torch_settings(case["settings"]), count_padding=count_padding)
    np.testing.assert_allclose(out, case[f"average_{count_padding}"], **CLOSE)


def test_the_slides_max_pool_and_its_gradient():
    x = SLIDE.astype(float)[None, ..., None]
    out, vjp = jax.vjp(lambda x: ops.max_pool(x, 2), x)
    np.testing.assert_array_equal(out[0, ..., 0], [[9, 8], [8, 5]])
    g = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    np.testing.assert_array_equal(
        vjp(g)[0][0, ..., 0], [[0, 0, 0, 2], [1, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]
    )


def test_padding_never_wins_and_the_first_of_equals_gets_the_gradient():
    x = -jnp.ones((1, 4, 1))
    assert ops.max_pool(x, 3, 1, "same").max() == -1
    gradient = jax.grad(lambda x: ops.max_pool(x, 2).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, 0], [1, 0, 1, 0])


def test_a_window_without_a_number_above_minus_infinity_still_names_its_first_pixel():
    x = jnp.full((1, 4, 1), -jnp.inf)
    values, index = ops.max_pool_with_argmax(x, 2)
    np.testing.assert_array_equal(values[0, :, 0], [-np.inf, -np.inf])
    np.testing.assert_array_equal(index[0, :, 0], [0, 2])


def test_gaussian_pooling_is_a_blur_then_a_choice_of_pixels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 11))
    # truncate so that SciPy's kernel is the same 5 taps, which it also normalises
    blurred = scipy.ndimage.gaussian_filter(x, 0.8, truncate=2 / 0.8)[2:-2:2, 2:-2:2]
    out = ops.gaussian_pool(jnp.asarray(x)[None, ..., None], 5, 2, sigma=0.8)
    np.testing.assert_allclose(out[0, ..., 0], blurred, **CLOSE)


def test_gaussian_pooling_keeps_a_constant_up_to_the_border():
    x = jnp.full((1, 6, 6, 2), 3.0)
    np.testing.assert_allclose(ops.gaussian_pool(x, 3, 2, "same", sigma=1.0), 3.0, **CLOSE)
    weights = ops.gaussian_weights((3, 3), 1.0)
    assert weights[1, 1] == 1
    np.testing.assert_allclose(weights[0, 0], np.exp(-1), **CLOSE)


def test_l2_pooling_equals_torchs_and_has_a_gradient_at_zero(torch_cases):
    case = torch_cases["l2"]
    np.testing.assert_allclose(ops.l2_pool(case["x"], **case["settings"]), case["out"], **CLOSE)
    gradient = jax.grad(lambda x: ops.l2_pool(x, 2).sum())(jnp.array([0.0, 0, 3, 4])[None, :, None])
    np.testing.assert_allclose(gradient[0, :, 0], [0, 0, 0.6, 0.8], **CLOSE)


@pytest.mark.slow
def test_every_pooling_is_differentiable_twice_under_vmap_and_forward():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 4, 2)))
    poolings = {
        "max": lambda x: ops.max_pool(x, 3, 2, "same"),
        "average": lambda x: ops.avg_pool(x, 3, 2, "same", count_padding=False),
        "gaussian": lambda x: ops.gaussian_pool(x, 3, 2, "same", sigma=1.0),
        "l2": lambda x: ops.l2_pool(x, 3, 2, "same"),
        "adaptive": lambda x: ops.adaptive_max_pool(x, (3, 2)),
        "pyramid": lambda x: ops.spatial_pyramid_pool(x, (1, 2), kind="avg"),
    }
    many = jnp.stack([x, 2 * x, -x])
    for name, pool in poolings.items():

        def value(x, pool=pool):
            return jnp.sin(pool(x)).sum()

        @jax.jit
        def check(x, direction, value=value):
            step = 1e-6 * direction
            slope = jax.grad(value)
            along = lambda f: (f(x + step) - f(x - step)) / 2e-6  # noqa: E731
            first = (
                along(value),
                jnp.vdot(slope(x), direction),
                jax.jvp(value, (x,), (direction,))[1],
            )
            second = (
                along(slope),
                jax.jvp(slope, (x,), (direction,))[1],
                jax.grad(lambda x: jnp.vdot(slope(x), direction))(x),
            )
            return first, second

        direction = np.random.default_rng(1).normal(size=x.shape)
        for numeric, *exact in check(x, direction):
            for slope in exact:
                np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-7, err_msg=name)
        each = jax.jit(lambda many, value=value: (jax.vmap(value)(many), jax.lax.map(value, many)))
        np.testing.assert_allclose(*each(many), **CLOSE, err_msg=name)


def test_pooling_at_stride_one_is_nearly_invariant_to_a_shift():
    # Goodfellow, Bengio & Courville 2016, figure 9.8: all inputs change, half of the maxima
    x = jnp.array([0.1, 1.0, 0.2, 0.1])
    shifted = jnp.array([0.3, 0.1, 1.0, 0.2])
    before, after = (
        ops.max_pool(row[None, :, None], 3, 1, "same")[0, :, 0] for row in (x, shifted)
    )
    np.testing.assert_array_equal(before, [1, 1, 1, 0.2])
    np.testing.assert_array_equal(after, [0.3, 1, 1, 1])
    assert (x != shifted).sum() == 4
    assert (before != after).sum() == 2


def test_a_window_larger_than_the_image_is_an_error_of_use():
    with pytest.raises(UsageError, match="does not fit 2 pixels"):
        ops.max_pool(jnp.ones((1, 2, 2, 1)), 3)
