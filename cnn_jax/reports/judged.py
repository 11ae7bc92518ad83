"""What another network sees in pictures that were made with one network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from cnn_jax import trained
from cnn_jax.data import photographs, preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.trained import Trained
from cnn_jax.visualize import perceptual

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

    Args:
      images: in 0..1.
      classes: the names of what they are to show, known to the judge.

    Returns:
      Of each image best (a name), rank (1 is the best) and probability.
    """
    f = trained.classifier(network)
    pixels = _as_seen(network, f, images)
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


def differences(
    network: Trained,
    originals: Float[np.ndarray, "m h w c"],
    pictures: Mapping[str, Float[np.ndarray, "m h w c"]],
) -> dict[str, Any]:
    """Return how far pictures are from their originals in the judge's features.

    Args:
      originals, pictures: in 0..1.

    Returns:
      layers, the paths that are compared, see `perceptual.stages`; distance, of each kind of
      pictures the m distances, see `perceptual.perceptual_distance`; mean_color, those of the
      originals' mean colours, which show nothing.

    Raises:
      UsageError: the judge has no layer with rows and columns.
    """
    classify = trained.classifier(network)
    pixels = _as_seen(network, classify, originals)
    paths = perceptual.stages(trained.layer_shapes(network, pixels.shape[1:]))
    if not paths:
        raise UsageError(f"{network.model.name} has no maps to compare; give another --judge")
    f = trained.layers(network, paths)
    measure = jax.jit(lambda f, a, b: perceptual.perceptual_distance(f(a), f(b)))

    def distance(others):
        return np.asarray(measure(f, pixels, _as_seen(network, classify, others)))

    mean = np.broadcast_to(originals.mean(axis=(1, 2), keepdims=True), originals.shape)
    return {
        "layers": paths,
        "distance": {kind: distance(each) for kind, each in pictures.items()},
        "mean_color": distance(mean),
    }


def _as_seen(
    network: Trained, f: Callable, images: Sequence[Float[np.ndarray, "h w c"]]
) -> Float[np.ndarray, "n h w c"]:
    """Return the very pixels, at their own size where the judge takes that, else as from a file.

    Enlarged to its own size a picture's details are of another scale than those that the network
    put there.
    """
    pixels = np.clip(np.stack(list(images)), 0, 1).astype(np.float32)
    if takes(f, pixels.shape[1:]):
        return pixels
    files = (photographs.to_pillow(image) for image in pixels)
    seen = [preprocessing.preprocess(file, network.preprocessing) for file in files]
    return np.stack(list(map(preprocessing.to_array, seen))).astype(np.float32) / 255


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Return in words how many of the pictures the judge takes for what they are to show."""
    first = sum(row["rank"] == 1 for row in rows)
    top = sum(row["rank"] <= IN_TOP for row in rows)
    return f"{first} of {len(rows)} named first, {top} within its first {IN_TOP}"
