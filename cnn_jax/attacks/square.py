"""Square attack: squares of colour at random places, kept where they lower the margin."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import checks, loop, losses, norms
from cnn_jax.attacks.loop import Batching, LogitsOf

# queries after which the square's share of the image is halved (Andriushchenko et al. 2020)
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_TINY = 1e-12


class _State(NamedTuple):
    x: Array  # the best so far
    image: Array
    label: Array
    eps: Array
    margin: Array
    key: Array  # the words of the example's key


def sides(share: float, height: int, width: int, norm: str) -> tuple[int, ...]:
    """Return the squares' sides, the one to start with first; odd and 3 at least in l2."""
    found = []
    for halvings in range(len(_HALVED_AFTER) + 1):
        side = max(round(math.sqrt(share / 2**halvings * height * width)), 1)
        if norm == "l2":
            side = max(side, 3)
            side += side % 2 == 0
        found.append(min(side, height, width))
    return tuple(found)


def bump(side: int, size: int) -> Float[np.ndarray, "size size"]:
    """Return a hill and a hollow of unit length in the corner of an empty square (its eta)."""

    def hill(rows: int, columns: int) -> np.ndarray:
        heights = np.zeros((rows, columns))
        row, column = rows // 2, columns // 2
        for ring in range(max(rows // 2, columns // 2) + 1):
            heights[
                max(row - ring, 0) : row + ring + 1, max(column - ring, 0) : column + ring + 1
            ] += 1 / (ring + 1) ** 2
        return heights / np.linalg.norm(heights)

    pattern = np.concatenate([hill(side // 2, side), -hill(side - side // 2, side)])
    out = np.zeros((size, size))
    out[:side, :side] = pattern / np.linalg.norm(pattern)
    return out


def _window(key: Array, side: Array, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Draw a square's place: its mask [h, w, 1] and its corner."""
    rows, columns = shape[:2]
    u = jax.random.uniform(key, (2,))
    top = jnp.floor(u[0] * (rows - side)).astype(int)
    left = jnp.floor(u[1] * (columns - side)).astype(int)
    row, column = jnp.arange(rows)[:, None, None], jnp.arange(columns)[None, :, None]
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    return inside, top, left


def _signs(key: Array, shape: tuple[int, ...], dtype) -> Array:
    return jax.random.rademacher(key, shape, dtype)


def _stripes(key, state):
    """Start in linf: vertical stripes, a pixel wide."""
    _, width, channels = state.image.shape
    return state.image + state.eps * _signs(key, (1, width, channels), state.image.dtype)


def _square(key, state, side, _):
    """Next in linf: a square pushed to one side of the budget, each channel to its own."""
    place, sign = jax.random.split(key)
    inside, _, _ = _window(place, side, state.image.shape)
    delta = 2 * state.eps * _signs(sign, (1, 1, state.image.shape[2]), state.image.dtype)
    x = state.x + jnp.where(inside, delta, 0)
    return jnp.clip(x, state.image - state.eps, state.image + state.eps)


def _scaled(delta, eps):
    return eps * delta / (jnp.sqrt(jnp.square(delta).sum()) + _TINY)


def _tiles(key, state):
    """Start in l2: five times five bumps, each channel with its own signs."""
    height, width, channels = state.image.shape
    side = max(height // 5, 1)
    rows, columns = height // side, width // side
    flip, sign = jax.random.split(key)
    pattern = jnp.asarray(bump(side, side), state.image.dtype) if side > 1 else jnp.ones((1, 1))
    flips = jax.random.bernoulli(flip, shape=(rows, columns, 1, 1))
    tiles = jnp.where(flips, pattern.T, pattern)[..., None]
    tiles *= _signs(sign, (rows, columns, 1, 1, channels), state.image.dtype)
    delta = tiles.swapaxes(1, 2).reshape(rows * side, columns * side, channels)
    # as the authors' code has it, the grid is centred by what five tiles leave over
    offset = (height - 5 * side) // 2 if height >= 5 * side else 0
    offset = min(max(offset, 0), height - rows * side, width - columns * side)
    margins = [(offset, n - offset - k * side) for n, k in ((height, rows), (width, columns))]
    delta = jnp.pad(delta, (*margins, (0, 0)))
    return state.image + _scaled(delta, state.eps)


def _moved_bump(key, state, side, pattern):
    """Next in l2: one window's length, and what the budget has left, go to a bump in another."""
    first, second, flip, sign = jax.random.split(key, 4)
    delta = state.x - state.image
    inside, top, left = _window(first, side, delta.shape)
    emptied, _, _ = _window(second, side, delta.shape)

    def length(values):
        return jnp.sqrt(jnp.square(values).sum(axis=(0, 1), keepdims=True))

    old = jnp.where(inside, delta, 0)
    both = length(jnp.where(inside | emptied, delta, 0))
    left_over = jnp.maximum(jnp.square(state.eps) - jnp.square(delta).sum(), 0)
    pattern = jnp.where(jax.random.bernoulli(flip), pattern.T, pattern)
    pattern = jnp.roll(pattern, (top, left), (0, 1))[: delta.shape[0], : delta.shape[1], None]
    new = pattern * _signs(sign, (1, 1, delta.shape[2]), delta.dtype)
    new += old / (length(old) + _TINY)
    new *= jnp.sqrt(left_over / delta.shape[2] + jnp.square(both)) / (length(new) + _TINY)
    delta = jnp.where(inside, new, jnp.where(emptied, 0, delta))
    return state.image + _scaled(delta, state.eps)


_PROPOSALS = {"linf": (_stripes, _square), "l2": (_tiles, _moved_bump)}


def _step(logits_of, state, taken, *, norm, share) -> loop.Step:
    height, width = state.image.shape[1:3]
    choices = sides(share, height, width, norm)
    patterns = np.zeros((len(choices), 1, 1))
    if norm == "l2":
        patterns = np.stack([bump(side, max(height, width)) for side in choices])
    start, propose = _PROPOSALS[norm]

    def candidate(taken, state):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), taken)
        stage = (taken - 1 > jnp.array(_HALVED_AFTER)).sum()
        pattern = jnp.asarray(patterns, state.x.dtype)[stage]
        later = propose(key, state, jnp.array(choices)[stage], pattern)
        return jnp.clip(jnp.where(taken == 0, start(key, state), later), 0, 1)

    x = jax.vmap(candidate)(taken, state)
    logits = logits_of(x)
    margin = losses.margin(logits, state.label)
    better = (margin < state.margin) | (margin <= 0)
    new = state._replace(
        x=jnp.where(norms.broadcast(better, x), x, state.x),
        margin=jnp.where(better, margin, state.margin),
    )
    fooled = logits.argmax(axis=1) != state.label
    return loop.Step(new, fooled, loop.not_finite(logits))


def square(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    key: Key[Array, ""],
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 5000,
    share: float = 0.8,
    indices: Int[Array, " n"] | None = None,
    batching: Batching = loop.DEFAULT,
) -> Float[np.ndarray, "n h w c"]:
    """Return the images of the lowest margin that random search finds, fooled or not.

    Andriushchenko et al. 2020: a black-box attack, which sees logits and no gradient. Each example
    draws its own squares, and is left as soon as it is fooled.

    Args:
      eps: the ball's radius in the norm, "linf" or "l2".
      steps: queries after the first.
      share: of the image that the first squares cover.
      indices: the examples' numbers, which their randomness derives from; by default 0 to n - 1.

    Raises:
      UsageError: pixels or budget not in units of 0..1, no key, logits that are not finite.
    """
    norm = norms.find(norm, ("linf", "l2"))
    images, labels = checks.labelled(logits_of, images, labels)
    checks.check_eps(eps, norm.name, images[:1].size)
    keys = np.asarray(jax.random.key_data(checks.example_keys(key, indices, len(images))))
    margin = np.full(len(images), np.inf, images.dtype)
    radius = np.full(len(images), eps, images.dtype)
    state = _State(images, images, labels, radius, margin, keys)
    state = loop.run(
        _step,
        logits_of,
        state,
        steps=steps + 1,
        batching=batching,
        norm=norm.name,
        share=share,
    )
    checks.assert_within(images, state.x, eps, norm.name)
    return state.x
