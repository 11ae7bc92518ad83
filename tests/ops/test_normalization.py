"""Normalisation against PyTorch's and the papers' formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
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
