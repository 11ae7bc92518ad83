"""A first convolution that whitens patches of the training images.

Page 2019, "How to train your ResNet"; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single
GPU".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from cnn_jax.errors import UsageError

EXAMPLES = 5000  # images that the covariance is taken of


def whitening_filters(
    images: Float[np.ndarray, "n h w c"], size: int, epsilon: float = 5e-4
) -> Float[np.ndarray, "size size c features"]:
    """Return the eigenvectors of the patches' covariance, each over the root of its eigenvalue.

    First in the order of growing eigenvalues, then the same negated: features = 2 c size^2. The
    patches are not centred.

    Args:
      images: normalised.
      size: height and width of the patches, in pixels.
      epsilon: added to the eigenvalues.
    """
    patches = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    channels = images.shape[-1]
    patches = patches.reshape(-1, channels * size * size)
    covariance = patches.T @ patches / len(patches)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    filters = (vectors / np.sqrt(values + epsilon)).reshape(channels, size, size, -1)
    filters = np.concatenate([filters, -filters], axis=-1).transpose(1, 2, 0, 3)
    return filters.astype(images.dtype)


def whitened(
    variables: Mapping[str, Any], path: str, images: Float[np.ndarray, "n h w c"]
) -> dict[str, Any]:
    """Return the variables with whitening filters in the convolution of this path.

    Raises:
      UsageError: no convolution there, or one of another number of filters.
    """
    flat = flatten_dict(variables, sep="/")
    name = f"params/{path}/kernel"
    channels = images.shape[-1]
    shape = np.shape(flat[name]) if name in flat else ()
    if len(shape) != 4 or shape != (shape[0], shape[0], channels, 2 * channels * shape[0] ** 2):
        found = f"has a kernel {shape}" if shape else "is no layer with a kernel"
        raise UsageError(
            f"--whiten={path} {found}; it takes [k, k, {channels}, {2 * channels} k^2], as "
            "'whiten' in airbench94"
        )
    flat[name] = whitening_filters(images, shape[0]).astype(np.float32)
    return unflatten_dict(flat, sep="/")
