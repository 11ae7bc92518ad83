"""Pooling in forms that XLA runs fast on a CPU.

Its own gradient of a windowed maximum searches each window again, by a scalar loop; its own sum
over all positions draws the convolutions before it into one fusion, at half their speed.
`cnn_jax.ops.max_pool` and `global_avg_pool` take these forms on that platform alone.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.ops.geometry import Window
from cnn_jax.ops.shifts import pad, under_tap

# Every tap is an instruction of the program: of larger windows there would be too many.
MOST_TAPS = 25


@partial(jax.jit, static_argnames=("windows", "outputs"))  # traced once for equal shapes
def max_pool(
    x: Float[Array, "n *spatial c"], windows: tuple[Window, ...], outputs: tuple[int, ...]
) -> Float[Array, "n *outputs c"]:
    """Return each window's maximum; the gradient goes to the first of equal ones."""
    every = (Window(1), *windows, Window(1))
    return _max_pool(x, every, (x.shape[0], *outputs, x.shape[-1]))


@jax.jit
def global_avg_pool(x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """Return the mean over all spatial positions, as the product with a row of ones."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    ones = jnp.ones(x.shape[:2], x.dtype)
    exact = jnp.promote_types(x.dtype, jnp.float32)
    total = jnp.einsum("npc,np->nc", x, ones, preferred_element_type=exact)
    return (total / x.shape[1]).astype(x.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max_pool(x, windows, outputs):
    return _with_tap(x, windows, outputs)[0]


@_max_pool.defjvp
def _max_pool_jvp(windows, outputs, primals, tangents):
    best, chosen = _with_tap(*primals, windows, outputs)
    padded = pad(*tangents, windows, 0)
    tangent = jnp.zeros_like(best)
    for number, taps in enumerate(_taps(windows)):
        tangent += jnp.where(chosen == number, under_tap(padded, taps, windows, outputs), 0)
    return best, tangent


def _with_tap(x, windows, outputs):
    """Return each window's maximum and the number of the tap that met it."""
    padded = pad(x, windows, -np.inf)
    first, *others = (under_tap(padded, taps, windows, outputs) for taps in _taps(windows))
    best, chosen = first, jnp.zeros(outputs, jnp.int16)
    for number, values in enumerate(others, 1):
        better = (values > best) | jnp.isnan(values)
        best, chosen = jnp.where(better, values, best), jnp.where(better, jnp.int16(number), chosen)
    return best, chosen


def _taps(windows):
    return itertools.product(*(range(window.size) for window in windows))
