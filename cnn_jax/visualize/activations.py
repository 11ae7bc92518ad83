"""What excites a channel: the patches of real images to which it answers most."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from cnn_jax.programs import receptive_field
from cnn_jax.runtime.partial import as_partial
from cnn_jax.visualize.batching import (
    DEFAULT_BATCH,
    Progress,
    in_batches,
    no_progress,
)
from cnn_jax.visualize.grad_cam import require_extent

OUTSIDE = 0.5  # the grey of what a receptive field sees beyond the image


class Peaks(NamedTuple):
    """Of each channel the images that excite it most, strongest first.

    values: the largest activation.  images, rows, columns: where it is.
    """

    values: Float[np.ndarray, "c k"]
    images: Int[np.ndarray, "c k"]
    rows: Int[np.ndarray, "c k"]
    columns: Int[np.ndarray, "c k"]


def peaks(
    f: Callable[[Array], Array],
    images: Float[Array, "n h w c"],
    count: int = 9,
    *,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
) -> Peaks:
    """Find of each channel the images with the largest activation anywhere, one place an image.

    Zeiler & Fergus 2014, figure 2.

    Args:
      f: images -> activation [n, rows, columns, channels].
      count: images a channel; fewer where there are fewer.

    Raises:
      UsageError: an activation without rows and columns.
    """
    shape = jax.eval_shape(f, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)).shape
    require_extent("given", shape)
    find = Partial(_largest, as_partial(f))
    values, places = in_batches(find, images, batch_size=batch_size, progress=progress)
    values, places = np.asarray(values).T, np.asarray(places).T
    best = np.argsort(-values, axis=1, kind="stable")[:, :count]
    rows, columns = np.divmod(np.take_along_axis(places, best, axis=1), shape[2])
    return Peaks(np.take_along_axis(values, best, axis=1), best, rows, columns)


@jax.jit
def _largest(f, images):
    activation = f(images)
    activation = activation.reshape(len(images), -1, activation.shape[-1])
    return activation.max(axis=1), activation.argmax(axis=1)


def patches(
    f: Callable[[Array], Array], images: Float[np.ndarray, "n h w c"], found: Peaks
) -> Float[np.ndarray, "channels k height width c"]:
    """Return what each peak's unit sees of its image: its receptive field, grey outside.

    All have the size of the largest, at most the image's.
    """
    images = np.asarray(images)
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    starts, sizes = [], []
    for (first, last), length in zip(
        receptive_field.seen_pixels(f, image), images.shape[1:3], strict=True
    ):
        size = int(min((last - first).max() + 1, length))
        sizes.append(size)
        if size == length:
            starts.append(np.zeros_like(first))
        else:
            starts.append((first + last + 1 - size) // 2)
    height, width = sizes
    border = [(0, 0), (height, height), (width, width), (0, 0)]
    padded = np.pad(images, border, constant_values=OUTSIDE)
    result = np.empty((*found.images.shape, height, width, images.shape[-1]), images.dtype)
    for index in np.ndindex(found.images.shape):
        row = starts[0][found.rows[index]] + height
        column = starts[1][found.columns[index]] + width
        picture = padded[found.images[index]]
        result[index] = picture[row : row + height, column : column + width]
    return result


def used_share(activation: Float[Array, "n ... c"]) -> Float[Array, " c"]:
    """Return of each channel the share of places where it is positive: 0 for a dead one."""
    return (jnp.asarray(activation) > 0).mean(axis=tuple(range(activation.ndim - 1)))
