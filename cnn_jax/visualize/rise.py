"""RISE: the mean of random masks, weighted by the score of the image seen through each.

Petsiuk, Das & Saenko 2018, "RISE: randomized input sampling for explanation of black-box models".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cnn_jax.runtime.partial import as_partial
from cnn_jax.visualize.batching import (
    DEFAULT_BATCH,
    Progress,
    WatchMaps,
    no_progress,
)
from cnn_jax.visualize.scores import Classifier, Images, Targets, class_outputs


def rise(
    f: Classifier,
    images: Images,
    targets: Targets,
    key: Array,
    *,
    masks: int = 4000,
    cells: int = 7,
    probability: float = 0.5,
    fill: Float[Array, "..."] | float = 0.0,
    output: str = "probability",
    settled: float | None = None,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
    watch: WatchMaps | None = None,
) -> Float[Array, "n h w"]:
    """Return sum_i output(image * mask_i) mask_i / (masks * probability): equation 6.

    All images are seen through the same masks. Needs no gradient.

    Args:
      masks, cells, probability: see `draw_masks`.
      settled: the `reliability` at which an image's map is done, with fewer masks than `masks`;
        None: each takes all masks.
      fill: what is seen where the mask is 0, broadcast to one image.
      output: "probability" or "score".
      batch_size: network inputs at once.
      watch: is shown the maps of the masks so far, after each batch of them.
    """
    images, targets = jnp.asarray(images), jnp.asarray(targets)
    drawn = draw_masks(key, masks, images.shape[1:3], cells=cells, probability=probability)
    size = min(masks, batch_size)
    starts = range(0, masks, size)
    f, fill = as_partial(f), jnp.broadcast_to(jnp.asarray(fill, images.dtype), images.shape[1:])
    halves = [[0.0, 0.0] for _ in images]  # of even and of odd batches
    used, unsettled = [0] * len(images), list(range(len(images)))

    def maps() -> Float[Array, "n h w"]:
        return jnp.stack([sum(h) / (n * probability) for h, n in zip(halves, used, strict=True)])

    for turn, start in enumerate(progress(starts, len(starts))):
        number = np.arange(start, start + size)
        batch = Masks(*(array[np.minimum(number, masks - 1)] for array in drawn))
        soft = _enlarged(batch, images.shape[1:3]).astype(images.dtype)
        for i in unsettled:
            seen = fill + soft[..., None] * (images[i] - fill)
            outputs = class_outputs(f, seen, jnp.full(size, targets[i]), output)
            outputs = jnp.where(number < masks, outputs, 0)
            halves[i][turn % 2] += jnp.tensordot(outputs, soft, axes=1)
            used[i] = min(start + size, masks)
        if watch is not None:
            watch(maps())
        if settled is not None and turn % 2 and turn > 1:
            unsettled = [i for i in unsettled if not reliability(*halves[i]) >= settled]
        if not unsettled:
            break
    return maps()


def reliability(a: Float[Array, "h w"], b: Float[Array, "h w"]) -> float:
    """Return the correlation to expect of a + b with another map of as many masks.

    Spearman and Brown's formula, 2 r / (1 + r), of the correlation r between maps a and b, each of
    half the masks. A map that is the same everywhere tells nothing: 0.
    """
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    if not (a.std() and b.std()):
        return 0.0
    r = float(np.corrcoef(a, b)[0, 1])
    return 2 * r / (1 + r) if r > 0 else 0.0


class Masks(NamedTuple):
    """Masks as what they are made of.

    grids: zeros and ones.  places: row and column where the enlarged grid is cut.
    """

    grids: Bool[Array, "m cells cells"]
    places: Int[Array, "m 2"]


def draw_masks(
    key: Array,
    masks: int,
    size: tuple[int, int],
    *,
    cells: int = 7,
    probability: float = 0.5,
) -> Masks:
    """Draw masks for images of this size: each cell is seen with the probability (section 3.2)."""
    grid_key, place_key = jax.random.split(key)
    grids = jax.random.bernoulli(grid_key, probability, (masks, cells, cells))
    return Masks(grids, jax.random.randint(place_key, (masks, 2), 0, _cell(size, cells)))


def enlarged(masks: Masks, size: tuple[int, int]) -> Float[Array, "m h w"]:
    """Return the masks in 0..1: the grids, enlarged bilinearly to one cell more, and cut."""
    cells = masks.grids.shape[1]
    rows, columns = (
        _interpolation(cells, length, step, masks.places[:, axis])
        for axis, (length, step) in enumerate(zip(size, _cell(size, cells), strict=True))
    )
    return jnp.einsum("mri,mij,mcj->mrc", rows, masks.grids.astype(rows.dtype), columns)


def _cell(size, cells):
    """Return the rows and columns of a cell, rounded up."""
    return np.array([-(-length // cells) for length in size])


def _interpolation(cells, length, step, places):
    """Return [m, length, cells]: the weights of an axis's cells at each pixel of the cut."""
    pixels = places[:, None] + jnp.arange(length) + 0.5
    positions = pixels * cells / ((cells + 1) * step) - 0.5  # in cells, from the first's centre
    positions = jnp.clip(positions, 0, cells - 1)
    return jnp.maximum(1 - jnp.abs(positions[..., None] - jnp.arange(cells)), 0)


_enlarged = jax.jit(enlarged, static_argnums=1)
