"""What lies near what: neighbours and maps in the space of a layer's features, or of pixels."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import optimize
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from cnn_jax.errors import UsageError
from cnn_jax.visualize.mosaic import mosaic

# On a busy machine scikit-learn's threads wait for each other: 127 s instead of 0.5 for 30 points.
_ONE_THREAD = partial(threadpool_limits, 1)


def flat(values: Float[Array, "n ..."]) -> Float[np.ndarray, "n d"]:
    """Return one vector an example."""
    return np.asarray(values).reshape(len(values), -1)


def nearest(
    gallery: Float[np.ndarray, "m d"],
    count: int,
    queries: Float[np.ndarray, "n d"] | None = None,
) -> Int[np.ndarray, "n count"]:
    """Return the rows of the gallery nearest to each query in Euclidean distance.

    Args:
      queries: None: the gallery's own rows, none of which is its own neighbour.

    Raises:
      UsageError: fewer rows than neighbours asked for.
    """
    available = len(gallery) - (queries is None)
    if not 1 <= count <= available:
        raise UsageError(f"{count} neighbours of {available} to choose from; give 1 to {available}")
    with _ONE_THREAD():
        search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(gallery)
        return search.kneighbors(queries, return_distance=False)


def recall_at(
    neighbours: Int[np.ndarray, "n count"],
    labels: Int[np.ndarray, " n"],
    ks: Sequence[int] = (1, 5, 10),
    gallery_labels: Int[np.ndarray, " m"] | None = None,
) -> dict[int, float]:
    """Return k -> share of the queries with one of their class among the first k neighbours.

    Jégou, Douze & Schmid 2011, as used in metric learning (Oh Song et al. 2016).

    Args:
      gallery_labels: None: the queries' own.
    """
    labels = np.asarray(labels)
    known = labels if gallery_labels is None else np.asarray(gallery_labels)
    same = known[neighbours] == labels[:, None]
    return {k: float(same[:, :k].any(axis=1).mean()) for k in ks if k <= neighbours.shape[1]}


def tsne(
    vectors: Float[np.ndarray, "n d"], key: Array, perplexity: float = 30.0
) -> Float[np.ndarray, "n 2"]:
    """Return t-SNE's place of each vector, scaled to 0..1 (van der Maaten & Hinton 2008).

    Raises:
      UsageError: no more vectors than the perplexity.
    """
    if perplexity >= len(vectors):
        raise UsageError(
            f"a perplexity of {perplexity:g} needs more than {len(vectors)} examples; "
            "take more, or a smaller one"
        )
    seed = int(jax.random.bits(key, dtype="uint32"))
    with _ONE_THREAD():
        points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    low = points.min(axis=0)
    return (points - low) / np.maximum(points.max(axis=0) - low, 1e-12)


def thumbnails(
    points: Float[np.ndarray, "n 2"], images: Float[np.ndarray, "n h w c"], background: float = 1.0
) -> Float[np.ndarray, "height width c"]:
    """Return a picture of the images, each moved from its point to a place of its own on a grid.

    The square grid has room for all; the squared ways are least in sum, so that neighbours stay so.

    Args:
      points: in 0..1: to the right, and up.
    """
    images = np.asarray(images)
    side = math.ceil(math.sqrt(len(images)))
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    cells = np.stack([columns.ravel(), side - 1 - rows.ravel()], axis=1) / max(side - 1, 1)
    ways = ((points[:, None] - cells[None]) ** 2).sum(axis=-1)
    _, places = optimize.linear_sum_assignment(ways)
    laid = np.full((side * side, *images.shape[1:]), background, images.dtype)
    laid[places] = images
    return mosaic(laid, side, background=background)
