"""Many small pictures in one array."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def mosaic(
    images: Sequence[Float[np.ndarray, "h w c"]] | Float[np.ndarray, "n h w c"],
    columns: int,
    gap: int = 1,
    background: float = 1.0,
) -> Float[np.ndarray, "height width c"]:
    """Return the images side by side, row by row, with a gap between them, in pixels.

    Args:
      images: of one shape, one at least.
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + gap, width + gap, channels), background, images.dtype)
    cells[:count, :height, :width] = images
    cells = cells.reshape(rows, columns, height + gap, width + gap, channels)
    picture = cells.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), channels)
    return picture[: picture.shape[0] - gap, : picture.shape[1] - gap]
