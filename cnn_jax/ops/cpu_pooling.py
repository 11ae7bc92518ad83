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
from cnn_jax.ops.shifts import pad, tiled, under_tap

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
    (x,), (x_dot,) = primals, tangents
    best, chosen = _with_tap(x, windows, outputs)
    spatial = x.shape[1:-1]
    pull_back = partial(_gradient, chosen=chosen, windows=windows[1:-1], spatial=spatial)
    return best, jax.linear_transpose(pull_back, best)(x_dot)[0]


def _gradient(g, chosen, windows, spatial):
    """Return dL/dx for g = dL/dout, phase by phase of the strides.

    Pixels of one phase are met by the same taps: each by that many windows, neighbours by
    neighbours.
    """
    met = [
        [divmod(tap * window.dilation, window.stride) for tap in range(window.size)]
        for window in windows
    ]
    around, counts = [], []
    for shifts, window, size, given in zip(met, windows, spatial, g.shape[1:-1], strict=True):
        counts.append(-(-(window.zeros[0] + size) // window.stride))
        before = max(shift for shift, _ in shifts)
        around.append((before, counts[-1] - given, 0))
    g, chosen = (
        jax.lax.pad(each, each.dtype.type(nothing), [(0, 0, 0), *around, (0, 0, 0)])
        for each, nothing in ((g, 0), (chosen, -1))
    )
    strides = [window.stride for window in windows]
    phases = dict.fromkeys(itertools.product(*map(range, strides)), 0)
    for number, taps in enumerate(itertools.product(*met)):
        starts = [before - shift for (before, *_), (shift, _) in zip(around, taps, strict=True)]
        place = (slice(start, start + count) for start, count in zip(starts, counts, strict=True))
        place = (slice(None), *place)
        phases[tuple(phase for _, phase in taps)] += jnp.where(chosen[place] == number, g[place], 0)
    shape = (len(g), *counts, g.shape[-1])
    patches = jnp.stack([jnp.broadcast_to(each, shape) for each in phases.values()], axis=-2)
    return tiled(patches.reshape(*shape[:-1], *strides, shape[-1]), windows, spatial)


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
