"""Operations written out as sums of products."""

import jax.numpy as jnp
import numpy as np

from cnn_jax.lecture import symbols


def test_a_matrix_product_by_its_own_derivatives():
    a, b = symbols.matrix_of_names("a", 2, 2), symbols.matrix_of_names("b", 2, 2)
    assert symbols.sums_of_products(jnp.matmul, a, b).tolist() == [
        ["a₁₁b₁₁ + a₁₂b₂₁", "a₁₁b₁₂ + a₁₂b₂₂"],
        ["a₂₁b₁₁ + a₂₂b₂₁", "a₂₁b₁₂ + a₂₂b₂₂"],
    ]


def test_coefficients_other_than_one_are_written():
    x, y = np.array(["x"], object), np.array(["y", "z"], object)
    text = symbols.sums_of_products(lambda x, y: jnp.stack([2 * x[0] * y[1], 0 * x[0]]), x, y)
    assert text.tolist() == ["2xz", "0"]
