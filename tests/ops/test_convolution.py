"""Convolution against SciPy's, PyTorch's and the lecture's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from cnn_jax import UsageError, ops

CASES = ["1d", "2d", "2d_strided", "2d_dilated", "2d_grouped", "2d_depthwise", "3d"]
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def plane(x):
    """One image or kernel of one channel."""
    return jnp.asarray(x, float)[None, ..., None]


def kernel(f):
    return jnp.asarray(f, float)[..., None, None]


@pytest.mark.parametrize("case", CASES)
def test_equals_torch(torch_cases, case):
    case = torch_cases[f"conv/{case}"]
    settings = {k: v for k, v in case["settings"].items() if k != "output_padding"}
    settings["padding"] = [(p, p) for p in settings.get("padding", [0] * (case["x"].ndim - 2))]
    np.testing.assert_allclose(
        ops.conv(case["x"], case["kernel"], **settings), case["out"], **CLOSE
    )


@pytest.mark.parametrize("sizes", [((9,), (4,)), ((7, 8), (3, 2)), ((5, 4, 6), (2, 3, 3))])
@pytest.mark.parametrize("padding", ["full", "valid"])
def test_true_convolution_and_correlation_equal_scipys(sizes, padding):
    rng = np.random.default_rng(0)
    x, f = (rng.normal(size=size) for size in sizes)
    np.testing.assert_allclose(
        ops.true_conv(plane(x), kernel(f), padding=padding)[0, ..., 0],
        scipy.signal.convolve(x, f, padding, method="direct"),
        **CLOSE,
    )
    np.testing.assert_allclose(
        ops.conv(plane(x), kernel(f), padding=padding)[0, ..., 0],
        scipy.signal.correlate(x, f, padding, method="direct"),
        **CLOSE,
    )


def test_same_padding_keeps_the_size_as_ndimage_does():
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(7, 8)), rng.normal(size=(3, 5))
    np.testing.assert_allclose(
        ops.conv(plane(x), kernel(f), padding="same")[0, ..., 0],
        scipy.ndimage.correlate(x, f, mode="constant"),
        **CLOSE,
    )
    np.testing.assert_allclose(
        ops.true_conv(plane(x), kernel(f), padding="same")[0, ..., 0],
        scipy.ndimage.convolve(x, f, mode="constant"),
        **CLOSE,
    )


def test_true_convolution_is_the_sum_of_the_definition_and_commutes():
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(4, 5)), rng.normal(size=(3, 2))
    out = ops.true_conv(plane(x), kernel(f))[0, ..., 0]
    # s(i, j) = sum over m, n of I(m, n) k(i - m, j - n)
    expected = np.zeros((6, 6))
    for (m, n), value in np.ndenumerate(x):
        expected[m : m + 3, n : n + 2] += value * f
    np.testing.assert_allclose(out, expected, **CLOSE)
    np.testing.assert_allclose(ops.true_conv(plane(f), kernel(x))[0, ..., 0], out, **CLOSE)
    # cross-correlation does not commute: exchanged, it comes out flipped
    correlated = ops.conv(plane(x), kernel(f), padding="full")[0, ..., 0]
    exchanged = ops.conv(plane(f), kernel(x), padding="full")[0, ..., 0]
    np.testing.assert_allclose(exchanged, correlated[::-1, ::-1], **CLOSE)
    assert np.abs(exchanged - correlated).max() > 1


def test_the_lectures_letters():
    # a b c d / e f g h / i j k l with w x / y z
    a, b, c, d, e, f, g, h, i, j, k, l = np.random.default_rng(0).normal(size=12)  # noqa: E741
    w, x, y, z = np.random.default_rng(1).normal(size=4)
    out = ops.conv(
        plane([[a, b, c, d], [e, f, g, h], [i, j, k, l]]),
        kernel([[w, x], [y, z]]),
        padding="valid",
    )
    expected = [
        [
            a * w + b * x + e * y + f * z,
            b * w + c * x + f * y + g * z,
            c * w + d * x + g * y + h * z,
        ],
        [
            e * w + f * x + i * y + j * z,
            f * w + g * x + j * y + k * z,
            g * w + h * x + k * y + l * z,
        ],
    ]
    np.testing.assert_allclose(out[0, ..., 0], expected, **CLOSE)


@pytest.mark.parametrize(("stride", "side"), [(1, 5), (2, 3)])
def test_a_7x7_grid_under_a_3x3_filter(stride, side):
    out = ops.conv(jnp.ones((1, 7, 7, 1)), jnp.ones((3, 3, 1, 1)), stride=stride, padding="valid")
    assert out.shape == (1, side, side, 1)


def test_the_lectures_two_edge_filters():
    halves = np.repeat([1.0, 0.0], 3)
    columns, rows = np.tile(halves, (6, 1)), np.tile(halves[:, None], (1, 6))
    vertical = [[1, 0, -1]] * 3
    np.testing.assert_array_equal(
        ops.conv(plane(columns), kernel(vertical), padding="valid")[0, ..., 0],
        [[0, 3, 3, 0]] * 4,
    )
    np.testing.assert_array_equal(
        ops.conv(plane(rows), kernel(np.transpose(vertical)), padding="valid")[0, ..., 0],
        [[0] * 4, [3] * 4, [3] * 4, [0] * 4],
    )


def test_the_filter_1_minus_1_finds_where_neighbours_differ():
    out = ops.conv(plane([[5, 5, 5, 2, 2, 7]]), kernel([[1, -1]]), padding="valid")
    np.testing.assert_array_equal(out[0, 0, :, 0], [0, 0, 3, 0, -5])


def test_translation_and_brightness_pass_through_a_convolution():
    rng = np.random.default_rng(0)
    x, f = plane(rng.normal(size=(12, 12))), kernel(rng.normal(size=(3, 3)))

    def shift(x):
        return jnp.roll(x, (2, 3), (1, 2))

    inside = (slice(None), slice(3, 10), slice(4, 10))  # where the shift brings nothing around
    before, after = (shift(ops.conv(x, f, padding="valid")), ops.conv(shift(x), f, padding="valid"))
    np.testing.assert_allclose(before[inside], after[inside], **CLOSE)
    np.testing.assert_allclose(ops.conv(3 * x, f), 3 * ops.conv(x, f), **CLOSE)


def test_negative_padding_crops():
    x = jnp.arange(6.0)[None, :, None]
    out = ops.conv(x, jnp.ones((2, 1, 1)), padding=[(-1, -2)])
    np.testing.assert_array_equal(out[0, :, 0], [1 + 2, 2 + 3])


def test_a_kernel_that_does_not_fit_and_an_unknown_padding_are_errors_of_use():
    with pytest.raises(UsageError, match="extent 5 does not fit 4 pixels"):
        ops.conv(jnp.ones((1, 4, 4, 1)), jnp.ones((5, 5, 1, 1)), padding="valid")
    with pytest.raises(UsageError, match="unknown padding 'smae'; did you mean 'same'"):
        ops.conv(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), padding="smae")


def test_computes_in_the_dtype_of_x():
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        out = jax.eval_shape(ops.conv, jnp.ones((1, 4, 4, 1), dtype), jnp.ones((3, 3, 1, 1), dtype))
        assert out.dtype == dtype
