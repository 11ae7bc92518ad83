"""Unshared and tiled convolution: conv is their special case."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, ops
from tests.ops.test_convolution import CLOSE

SETTINGS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": [1, 3], "padding": "full"},
    {"dilation": [2, 1], "padding": [(0, 2), (-1, 1)]},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_kernel_everywhere_is_conv(settings):
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(2, 8, 7, 3)), rng.normal(size=(3, 2, 3, 4))
    expected = ops.conv(x, f, **({"padding": "valid"} | settings))
    everywhere = np.broadcast_to(f, (*expected.shape[1:3], *f.shape))
    np.testing.assert_allclose(
        jax.jit(partial(ops.local_conv, **settings))(x, everywhere), expected, **CLOSE
    )
    tiles = np.broadcast_to(f, (2, 3, *f.shape))
    np.testing.assert_allclose(
        jax.jit(partial(ops.tiled_conv, **settings))(x, tiles), expected, **CLOSE
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_jaxs_own_unshared_convolution(settings):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 7, 3))
    settings = {"stride": 1, "padding": "valid", "dilation": 1} | settings
    stride, dilation = (ops.geometry.per_axis(settings[k], 2) for k in ("stride", "dilation"))
    pairs = ops.padding_pairs(settings["padding"], (3, 2), dilation)
    outputs = ops.conv(x, np.ones((3, 2, 3, 1)), **settings).shape[1:3]
    kernel = rng.normal(size=(*outputs, 3, 2, 3, 4))
    # JAX flattens its kernel channel first
    theirs = jax.lax.conv_general_dilated_local(
        x,
        kernel.transpose(0, 1, 4, 2, 3, 5).reshape(*outputs, -1, 4),
        stride,
        pairs,
        (3, 2),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    ours = jax.jit(partial(ops.local_conv, **settings))(x, kernel)
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (9, 20)])
def test_a_tiled_convolution_is_a_local_one_whose_kernels_repeat(settings, tiles):
    rng = np.random.default_rng(0)
    x, kernels = rng.normal(size=(2, 8, 7, 3)), rng.normal(size=(*tiles, 3, 2, 3, 4))
    out = jax.jit(partial(ops.tiled_conv, **settings))(x, kernels)
    rows, columns = (np.arange(n) % t for n, t in zip(out.shape[1:3], tiles, strict=True))
    everywhere = kernels[np.ix_(rows, columns)]
    expected = jax.jit(partial(ops.local_conv, **settings))(x, everywhere)
    np.testing.assert_allclose(out, expected, **CLOSE)


def test_tiles_may_be_grouped():
    rng = np.random.default_rng(0)
    x, kernels = rng.normal(size=(1, 9, 4)), rng.normal(size=(2, 3, 2, 6))
    out = ops.tiled_conv(x, kernels, groups=2)
    for tile in range(2):
        whole = ops.conv(x, kernels[tile], padding="valid", groups=2)
        np.testing.assert_allclose(out[:, tile::2], whole[:, tile::2], **CLOSE)


def test_kernels_for_other_positions_are_an_error_of_use():
    with pytest.raises(UsageError, match=r"each of \(4,\) positions, but there are \(3,\)"):
        ops.local_conv(jnp.ones((1, 5, 1)), jnp.ones((4, 3, 1, 1)))
