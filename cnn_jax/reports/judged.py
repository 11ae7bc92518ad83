"""What another network sees in pictures that were made with one network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from cnn_jax import trained
from cnn_jax.data import photographs, preprocessing
from cnn_jax.trained import Trained

IN_TOP = 5


def takes(f: Callable, shape: tuple[int, int, int]) -> bool:
    """Return whether f takes images of this height, width and channels."""
    try:
        jax.eval_shape(f, jax.ShapeDtypeStruct((1, *shape), np.float32))
    except Exception:  # a fully-connected layer of another size, or a map that shrinks to nothing
        return False
    return True


def judge(
    network: Trained, images: Sequence[Float[np.ndarray, "h w c"]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return of each picture its best class, and the rank and probability of the one it is to show.

    The judge sees the very pixels, at their own size where it takes that: enlarged to its own size
    a picture's details are of another scale than those that the network put there. Otherwise it
    sees them as it would a file.

    Args:
      images: in 0..1.
      classes: the names of what they are to show, known to the judge.

    Returns:
      Of each image best (a name), rank (1 is the best) and probability.
    """
    f, pixels = trained.classifier(network), np.stack(list(images)).astype(np.float32)
    if not takes(f, pixels.shape[1:]):
        files = (photographs.to_pillow(image) for image in images)
        seen = [preprocessing.preprocess(file, network.preprocessing) for file in files]
        pixels = np.stack(list(map(preprocessing.to_array, seen))).astype(np.float32) / 255
    classify = jax.jit(lambda f, pixels: jax.nn.softmax(f(pixels)))
    probabilities = np.asarray(classify(f, pixels))
    rows = []
    for row, name in zip(probabilities, classes, strict=True):
        own = row[network.class_names.index(name)]
        rows.append(
            {
                "best": network.class_names[row.argmax()],
                "rank": int((row > own).sum()) + 1,
                "probability": float(own),
            }
        )
    return rows


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Return in words how many of the pictures the judge takes for what they are to show."""
    first = sum(row["rank"] == 1 for row in rows)
    top = sum(row["rank"] <= IN_TOP for row in rows)
    return f"{first} of {len(rows)} named first, {top} within its first {IN_TOP}"
