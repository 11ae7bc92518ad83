"""Operations written out as sums of named products, as in a derivation by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def matrix_of_names(symbol: str, rows: int, columns: int) -> np.ndarray:
    """Return the names x₁₁, x₁₂, ... of a matrix' entries, counted from one."""
    subscript = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    names = [
        [symbol + f"{row}{column}".translate(subscript) for column in range(1, columns + 1)]
        for row in range(1, rows + 1)
    ]
    return np.array(names, dtype=object)


def sums_of_products(
    operation: Callable[[Array, Array], Array],
    first: np.ndarray,
    second: np.ndarray,
    times: str = "",
) -> np.ndarray:
    """Return, for each entry of operation(a, b), the sum of products that it is.

    The coefficients come from the operation's own derivatives, so what is written is what it
    computes.

    Args:
      operation: bilinear in two arrays.
      first, second: the names of their entries, in their shapes. Terms are ordered by `first`.
      times: what stands between two factors.

    Returns:
      Text such as "x₁₁f₁₁ + x₁₂f₁₂" in the shape of the result.
    """
    zeros = jnp.zeros(first.shape), jnp.zeros(second.shape)
    coefficients = np.asarray(jax.jit(jax.jacfwd(jax.jacfwd(operation, 0), 1))(*zeros))
    axes = coefficients.ndim - first.ndim - second.ndim
    sums = np.empty(coefficients.shape[:axes], dtype=object)
    for index in np.ndindex(sums.shape):
        terms = []
        for pair in np.argwhere(coefficients[index]):
            value = coefficients[index][tuple(pair)]
            factor = "" if value == 1 else f"{value:g}"
            a, b = first[tuple(pair[: first.ndim])], second[tuple(pair[first.ndim :])]
            terms.append(f"{factor}{a}{times}{b}")
        sums[index] = " + ".join(terms) or "0"
    return sums
