"""Transposed convolution against PyTorch's and as the adjoint of conv."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, ops
from tests.ops.test_convolution import CASES, CLOSE


@pytest.mark.parametrize("case", CASES)
def test_equals_torch(torch_cases, case):
    case = torch_cases[f"conv/{case}"]
    settings = dict(case["settings"])
    settings["padding"] = [(p, p) for p in settings.get("padding", [0] * (case["x"].ndim - 2))]
    np.testing.assert_allclose(
        ops.conv_transpose(case["g"], case["kernel"], **settings), case["transposed"], **CLOSE
    )


def test_is_the_adjoint_of_conv():
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(2, 9, 7, 4)), rng.normal(size=(3, 3, 2, 6))
    settings = {"stride": 2, "padding": 1, "groups": 2}
    y = rng.normal(size=ops.conv(x, f, **settings).shape)
    np.testing.assert_allclose(
        jnp.vdot(ops.conv(x, f, **settings), y),
        jnp.vdot(x, ops.conv_transpose(y, f, **settings)),
        rtol=1e-12,
    )


def test_a_2x2_kernel_at_stride_2_doubles_the_size():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    out = ops.conv_transpose(x, jnp.ones((2, 2, 1, 1)), stride=2)
    np.testing.assert_array_equal(out[0, ..., 0], np.kron([[1, 2], [3, 4]], np.ones((2, 2))))


def test_padding_that_crops_everything_is_an_error_of_use():
    with pytest.raises(UsageError, match="crops all"):
        ops.conv_transpose(jnp.ones((1, 1, 1)), jnp.ones((2, 1, 1)), padding=1)
