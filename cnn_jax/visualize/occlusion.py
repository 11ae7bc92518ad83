"""Occlusion: what the score loses when a patch of the image is covered.

Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2. What a
patch does not reach is computed once: `incremental`.
"""

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax import errors
from cnn_jax.errors import UsageError
from cnn_jax.programs.incremental import Grid, patched, plain_values
from cnn_jax.runtime.partial import as_partial
from cnn_jax.visualize.batching import (
    DEFAULT_BATCH,
    Progress,
    WatchMaps,
    even_batch,
    no_progress,
)
from cnn_jax.visualize.scores import Classifier, Images, Targets, class_outputs, score_of

AGGREGATES = ("mean", "sum")


def occlusion(
    f: Classifier,
    images: Images,
    targets: Targets,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    fill: Float[Array, "..."] | float = 0.0,
    aggregate: str = "mean",
    output: str = "score",
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
    watch: WatchMaps | None = None,
) -> Float[Array, "n h w"]:
    """Return for each pixel what the target's output loses by the windows that cover it.

    Args:
      window, stride: rows and columns. The windows start at the image's corner; the last ones may
        stick out, so that every pixel is covered if the stride is at most the window.
      fill: what covers, broadcast to one image: a number, a colour, an image.
      aggregate: "mean" over the windows that cover a pixel (captum), or their "sum" (PAIR).
      output: "score" or "probability".
      batch_size: network inputs at once.
      watch: is shown the maps of the windows so far, after each batch of them; nothing is lost yet
        where none was.

    Raises:
      UsageError: a window larger than the image, or a stride that leaves pixels uncovered.
    """
    if aggregate not in AGGREGATES:
        raise errors.unknown("aggregate", aggregate, AGGREGATES)
    # of each window, along each axis, the pixels that it covers
    rows, columns = (
        _covers(size, extent, step)
        for size, extent, step in zip(images.shape[1:3], window, stride, strict=True)
    )
    plain = class_outputs(as_partial(f), jnp.asarray(images), jnp.asarray(targets), output)

    def maps(covered: Float[Array, "n rows columns"]) -> Float[Array, "n h w"]:
        losses = plain[:, None, None] - covered
        by_row, by_column = (jnp.asarray(axis, losses.dtype) for axis in (rows, columns))
        total = jnp.einsum("nij,ih,jw->nhw", losses, by_row, by_column)
        if aggregate == "sum":
            return total
        return total / jnp.einsum("ih,jw->hw", by_row, by_column)

    def seen(outputs: list[Float[Array, " places"]]) -> None:
        covered = np.repeat(np.asarray(plain), len(rows) * len(columns))
        found = np.concatenate(outputs)
        covered[: len(found)] = found
        watch(maps(covered.reshape(-1, len(rows), len(columns))))

    settings = {"window": window, "stride": stride, "fill": fill, "output": output}
    settings |= {"batch_size": batch_size, "progress": progress}
    settings["watch"] = None if watch is None else seen
    return maps(occluded_outputs(f, images, targets, **settings))


def occluded_outputs(
    f: Classifier,
    images: Images,
    targets: Targets,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    fill: Float[Array, "..."] | float = 0.0,
    output: str = "probability",
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
    watch: Callable[[list[Float[Array, " places"]]], None] | None = None,
) -> Float[Array, "n rows columns"]:
    """Return the target's output for each place of the window; arguments as in `occlusion`.

    Args:
      watch: is shown the outputs so far in their order, a part for each batch, after each.
    """
    images, targets = jnp.asarray(images), jnp.asarray(targets)
    rows, columns = (
        tuple(_starts(size, extent, step).tolist())
        for size, extent, step in zip(images.shape[1:3], window, stride, strict=True)
    )
    grid = Grid(rows, columns, tuple(window))
    fill = jnp.broadcast_to(jnp.asarray(fill, images.dtype), images.shape[1:])[None]
    f = as_partial(f)
    count = len(rows) * len(columns)
    size = even_batch(count, batch_size)
    work = list(itertools.product(range(len(images)), range(0, count, size)))
    outputs, plain = [], None
    for index, start in progress(work, len(work)):
        image = images[index, None]
        if start == 0:
            plain = plain_values(f, image, fill, grid)
        places = np.minimum(np.arange(start, start + size), count - 1)
        row, column = np.divmod(places, len(columns))
        logits = patched(f, image, fill, plain, grid, row, column)
        found = score_of(output, logits, jnp.full(size, targets[index]))
        outputs.append(found[: count - start])
        if watch is not None:
            watch(outputs)
    return jnp.concatenate(outputs).reshape(len(images), len(rows), len(columns))


def _starts(size: int, window: int, stride: int) -> np.ndarray:
    """Return where windows start along an axis."""
    if not 1 <= window <= size:
        raise UsageError(f"a window of {window} does not fit into {size} pixels; give 1 to {size}")
    if not 1 <= stride <= window:
        raise UsageError(
            f"a stride of {stride} with a window of {window} leaves pixels out; give 1 to {window}"
        )
    return np.arange(-(-(size - window) // stride) + 1) * stride


def _covers(size: int, window: int, stride: int) -> np.ndarray:
    """Return [windows, size]: 1 where the window covers the pixel."""
    starts = _starts(size, window, stride)[:, None]
    return ((starts <= np.arange(size)) & (np.arange(size) < starts + window)).astype(float)
