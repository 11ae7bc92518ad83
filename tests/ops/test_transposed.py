"""Transposed convolution against PyTorch's and as the adjoint of conv."""

from functools import partial

import jax
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


@pytest.mark.parametrize(
    ("spatial", "sizes", "dilation"), [((5,), (3,), 1), ((4, 3), (2, 3), 1), ((4, 3), (2, 2), 2)]
)
def test_a_stride_of_the_kernels_size_gives_the_adjoint_and_its_gradients(spatial, sizes, dilation):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*sizes, 3, 4))
    settings = {"stride": sizes, "padding": "valid", "dilation": dilation}
    x = rng.normal(size=(2, *spatial, 4))

    def adjoint(x, kernel):
        shape = jax.eval_shape(lambda: ops.conv_transpose(x, kernel, **settings)).shape
        return jax.vjp(lambda z: ops.conv(z, kernel, **settings), jnp.zeros(shape))[1](x)[0]

    ours, pull_back = jax.vjp(partial(ops.conv_transpose, **settings), x, kernel)
    theirs, their_pull_back = jax.vjp(adjoint, x, kernel)
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    slope = rng.normal(size=ours.shape)
    for our_gradient, their_gradient in zip(pull_back(slope), their_pull_back(slope), strict=True):
        np.testing.assert_allclose(our_gradient, their_gradient, **CLOSE)


@pytest.mark.parametrize(("platform", "convolves"), [("cpu", False), ("tpu", True)])
def test_patches_that_tile_are_a_product_on_the_cpu_alone(platform, convolves):
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((2, 2, 3, 2))
    traced = jax.jit(partial(ops.conv_transpose, stride=2)).trace(x, kernel)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("convolution" in program) == convolves


def test_a_2x2_kernel_at_stride_2_doubles_the_size():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    out = ops.conv_transpose(x, jnp.ones((2, 2, 1, 1)), stride=2)
    np.testing.assert_array_equal(out[0, ..., 0], np.kron([[1, 2], [3, 4]], np.ones((2, 2))))


def test_padding_that_crops_everything_is_an_error_of_use():
    with pytest.raises(UsageError, match="crops all"):
        ops.conv_transpose(jnp.ones((1, 1, 1)), jnp.ones((2, 1, 1)), padding=1)
