"""Pooling into a given number of bins, so that images of any size give features of one."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.ops.geometry import per_axis


def bins(size: int, count: int) -> list[tuple[int, int]]:
    """Return where each of `count` bins over `size` pixels starts and ends.

    Bin i is the pixels from floor(i N / count) up to ceil((i + 1) N / count): all are covered,
    neighbours may share a pixel, and there may be more bins than pixels (PyTorch's rule).
    """
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _pool(x, counts, reduce):
    """Reduce each bin, axis by axis: the bins form a grid."""
    for axis, count in enumerate(per_axis(counts, x.ndim - 2), start=1):
        parts = [
            reduce(x[(slice(None),) * axis + (slice(start, end),)], axis=axis, keepdims=True)
            for start, end in bins(x.shape[axis], count)
        ]
        x = jnp.concatenate(parts, axis)
    return x


def adaptive_avg_pool(
    x: Float[Array, "n *spatial c"], counts: int | Sequence[int]
) -> Float[Array, "n *counts c"]:
    """Return the mean of each of counts[0] * counts[1] * ... bins, see `bins`."""
    return _pool(x, counts, jnp.mean)


def adaptive_max_pool(
    x: Float[Array, "n *spatial c"], counts: int | Sequence[int]
) -> Float[Array, "n *counts c"]:
    """Return the maximum of each of counts[0] * counts[1] * ... bins, see `bins`."""
    return _pool(x, counts, jnp.max)


def spatial_pyramid_pool(
    x: Float[Array, "n *spatial c"], levels: Sequence[int] = (1, 2, 4), *, kind: str = "max"
) -> Float[Array, "n entries"]:
    """Return the bins of several grids as one vector: c * sum(level^axes) entries for any size.

    Args:
      levels: bins along each axis, coarse to fine; each level's entries run over positions, then
        channels.
      kind: "max", as in the paper, or "avg".

    He et al. 2014, section 2.2; bins by PyTorch's rule.
    """
    pool = {"max": adaptive_max_pool, "avg": adaptive_avg_pool}[kind]
    return jnp.concatenate([pool(x, level).reshape(x.shape[0], -1) for level in levels], axis=1)
