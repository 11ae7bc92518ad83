"""Many evaluations of a network, as many at once as memory allows."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.tree_util import Partial
from jaxtyping import Array, Float

from cnn_jax.errors import UsageError
from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import Progress as Progress

DEFAULT_BATCH = 64
# watch(the maps as they are so far); what it raises ends the work
WatchMaps = Callable[[Float[Array, "n h w"]], None]


def no_progress(items: Iterable, total: int) -> Iterable:
    """Return the items: no bar."""
    del total
    return items


def even_batch(count: int, largest: int) -> int:
    """Return the size of equal batches, as few as may hold `count` rows: 50 in 13s, not in 16s."""
    return -(-count // -(-count // largest))


def in_batches(
    f: Callable[..., Any],
    *arrays: Array,
    batch_size: int | None = None,
    progress: Progress = no_progress,
) -> Any:
    """Return f(*arrays), computed from batch_size rows at a time and joined.

    The last batch is filled up with its last row, so that every batch has one shape and f, if it
    is jitted, is compiled once.

    Args:
      arrays: [m, ...] each, m >= 1; f returns [rows, ...] for that many rows of them,
        or a tree of such.
      batch_size: rows at once, at most; None: all.
      progress: wraps the loop over batches.
    """
    count = len(arrays[0])
    size = even_batch(count, batch_size or count)
    if size == count:
        return f(*arrays)
    results = []
    for start in progress(range(0, count, size), -(-count // size)):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        result = f(*(array[rows] for array in arrays))
        results.append(jax.tree.map(lambda leaf, start=start: leaf[: count - start], result))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


def within_memory(f: Callable, images: Any, memory_limit: float) -> Partial:
    """Return f, whose gradient of a batch of images fits into the memory.

    Where the batch is too large, f goes over it in parts, and computes each anew on the way back.

    Args:
      f: [n, h, w, c] -> an array or a tree of arrays, each image's apart from the others'.
      images: a batch as large as f will see, or a jax.ShapeDtypeStruct of it.
      memory_limit: bytes; as in `largest_batch`.

    Raises:
      UsageError: one image does not fit.
    """
    rows = largest_batch(gradient_of_sum(f), images, memory_limit=memory_limit, most=len(images))
    return as_partial(f) if rows == len(images) else Partial(partial(_in_parts, rows), f)


def gradient_of_sum(f: Callable) -> Callable:
    """Return the gradient, by its input, of the sum of all that f returns."""
    return jax.grad(lambda images: sum(leaf.sum() for leaf in jax.tree.leaves(f(images))))


def _in_parts(rows: int, f: Callable, images: Array) -> Any:
    count = len(images)
    filling = [(0, -count % rows)] + [(0, 0)] * (images.ndim - 1)
    parts = jnp.pad(images, filling, mode="edge").reshape(-1, rows, *images.shape[1:])
    found = jax.lax.map(jax.checkpoint(f), parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)


def values_bytes(f: Callable, *arrays: Any) -> int:
    """Return the bytes of all values that f computes of these arrays, as if none were freed."""
    return _bytes(jax.make_jaxpr(f)(*arrays))


def largest_batch(f: Callable, *arrays: Any, memory_limit: float, most: int = 512) -> int:
    """Return how many rows f may take at once so that its values fit into the memory.

    All intermediate values of one row are added up, as if none were freed before the end: the
    limit holds, and is seldom reached.

    Args:
      f: what will be run on batches; it is traced with one row of each array.
      arrays: [m, ...], or jax.ShapeDtypeStructs.
      memory_limit: bytes.
      most: returned if it fits; larger batches gain nothing.

    Raises:
      UsageError: one row does not fit.
    """
    row = [jax.ShapeDtypeStruct((1, *array.shape[1:]), array.dtype) for array in arrays]
    bytes_per_row = values_bytes(f, *row)
    if bytes_per_row > memory_limit:
        raise UsageError(
            f"one image takes {bytes_per_row / 2**20:.0f} MiB, more than the memory limit of "
            f"{memory_limit / 2**20:.0f} MiB; raise it, or take smaller images"
        )
    return int(min(memory_limit // max(bytes_per_row, 1), most))


def _bytes(jaxpr: Jaxpr | ClosedJaxpr) -> int:
    """Return the bytes of all values that the jaxpr computes, those of inner ones included."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    total = 0
    for equation in jaxpr.eqns:
        inner = [p for p in equation.params.values() if isinstance(p, (Jaxpr, ClosedJaxpr))]
        if inner:
            total += sum(map(_bytes, inner))
        else:
            total += sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)
    return total
