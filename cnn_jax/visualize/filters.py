"""Filters as images."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np
from jaxtyping import Float

from cnn_jax import errors
from cnn_jax.visualize.mosaic import mosaic


def _symmetric(kernel, axes):
    largest = np.abs(kernel).max(axis=axes, keepdims=True)
    return 0.5 + 0.5 * kernel / np.where(largest > 0, largest, 1)


def _stretched(kernel):
    low, high = (end(kernel, axis=(0, 1, 2), keepdims=True) for end in (np.min, np.max))
    return (kernel - low) / np.where(high > low, high - low, 1)


NORMALIZATIONS = {
    # zero is mid-grey, each filter scaled by its own largest weight
    "each": lambda kernel: _symmetric(kernel, (0, 1, 2)),
    # the same by the layer's largest: weak filters look weak
    "layer": lambda kernel: _symmetric(kernel, (0, 1, 2, 3)),
    # each filter from its least weight, black, to its most, white
    "range": _stretched,
}


def kernels(
    params: Mapping[str, Any], order: Iterable[str] = ()
) -> dict[str, Float[np.ndarray, "h w c k"]]:
    """Return path -> kernel of every convolution over images, those of `order` first.

    Args:
      order: paths of layers, for example all in order of execution.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    found = {
        path.removesuffix("/kernel"): np.asarray(leaf)
        for path, leaf in flat.items()
        if path.rpartition("/")[2] == "kernel" and leaf.ndim == 4
    }
    ordered = [path for path in order if path in found]
    return {path: found[path] for path in dict.fromkeys([*ordered, *found])}


def normalized(
    kernel: Float[np.ndarray, "h w c k"], normalization: str = "each"
) -> Float[np.ndarray, "h w c k"]:
    """Return the weights in 0..1 by a rule of NORMALIZATIONS.

    Raises:
      UsageError: an unknown normalisation.
    """
    if normalization not in NORMALIZATIONS:
        raise errors.unknown("normalization", normalization, NORMALIZATIONS)
    return NORMALIZATIONS[normalization](np.asarray(kernel, np.float64))


def filter_picture(
    kernel: Float[np.ndarray, "h w c k"],
    normalization: str = "each",
    *,
    columns: int = 8,
    most: int = 16,
) -> Float[np.ndarray, "height width colors"]:
    """Return one picture of a layer's filters, in 0..1.

    Filters of 1 or 3 input channels are images; of others, each filter is a row of one grey image
    for each input channel, the first `most` of both.
    """
    weights = normalized(kernel, normalization)
    if weights.shape[2] in (1, 3):
        return mosaic(np.moveaxis(weights, -1, 0), columns)
    weights = weights[:, :, :most, :most]
    grey = weights.transpose(3, 2, 0, 1).reshape(-1, *weights.shape[:2], 1)
    return mosaic(grey, weights.shape[2])
