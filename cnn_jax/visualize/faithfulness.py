"""Whether to believe a map: what happens to the score, and what if the network were another one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, PyTree
from scipy import ndimage, stats

from cnn_jax import taps
from cnn_jax.runtime.partial import as_partial
from cnn_jax.visualize.batching import (
    DEFAULT_BATCH,
    Progress,
    in_batches,
    no_progress,
)
from cnn_jax.visualize.grad_cam import TappedClassifier
from cnn_jax.visualize.scores import Classifier, Images, Targets, class_outputs

# A map is named insensitive if, of the trained and of the wholly randomised network, it ranks the
# pixels alike beyond this rank correlation.
INSENSITIVE = 0.5

Maps = Float[Array, "n h w"]


# --- insertion and deletion ----------------------------------------------------------------------


def insertion(
    f: Classifier,
    images: Images,
    targets: Targets,
    maps: Maps,
    *,
    pixels: int | None = None,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
) -> Float[Array, "n steps"]:
    """Return the target's probability while the pixels appear in a blurred image, largest first.

    Petsiuk et al. 2018, section 4.1. A good map makes it rise early.

    Args:
      pixels: a step; None: as many as a row has (224 at 224x224, the paper's).
    """
    blurred = blur(images)
    return _curves(f, blurred, images, targets, maps, pixels, batch_size, progress)


def deletion(
    f: Classifier,
    images: Images,
    targets: Targets,
    maps: Maps,
    *,
    pixels: int | None = None,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
) -> Float[Array, "n steps"]:
    """Return the target's probability while the pixels turn black, largest first.

    Arguments as in `insertion`. A good map makes it fall early.
    """
    black = jnp.zeros_like(jnp.asarray(images))
    return _curves(f, images, black, targets, maps, pixels, batch_size, progress)


def area(curves: Float[Array, "n steps"]) -> Float[Array, " n"]:
    """Return the area under each curve over the share of pixels, by trapezoids."""
    return jnp.trapezoid(curves, axis=1) / (curves.shape[1] - 1)


def blur(images: Images, size: int = 11, sigma: float = 5.0) -> Images:
    """Return the images smoothed by a Gaussian of size x size pixels, the border continued."""
    smooth = ndimage.gaussian_filter(
        np.asarray(images), sigma, axes=(1, 2), radius=size // 2, mode="nearest"
    )
    return jnp.asarray(smooth)


def _curves(f, start, end, targets, maps, pixels, batch_size, progress):
    start, end, targets = jnp.asarray(start), jnp.asarray(end), jnp.asarray(targets)
    count, rows, columns = maps.shape
    pixels = pixels or columns
    steps = -(-rows * columns // pixels) + 1
    order = np.argsort(-np.asarray(maps).reshape(count, -1), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable").reshape(count, rows, columns, 1)
    image, step = np.divmod(np.arange(count * steps), steps)
    f, ranks = as_partial(f), jnp.asarray(ranks)

    def run(index, changed):
        images = _changed(start, end, ranks, index, changed)
        return class_outputs(f, images, targets[index], "probability")

    outputs = in_batches(run, image, step * pixels, batch_size=batch_size, progress=progress)
    return outputs.reshape(count, steps)


@jax.jit
def _changed(start, end, ranks, index, changed):
    """Return the images of these indices with that many pixels changed."""
    done = ranks[index] < changed[:, None, None, None]
    return jnp.where(done, end[index], start[index])


# --- likeness of maps ----------------------------------------------------------------------------


def spearman(ours: Maps, theirs: Maps) -> Float[np.ndarray, " n"]:
    """Return each pair's rank correlation; NaN where a map is constant."""
    ranks = [
        stats.rankdata(np.asarray(maps).reshape(len(maps), -1), axis=1) for maps in (ours, theirs)
    ]
    ours, theirs = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    with np.errstate(invalid="ignore"):
        return (ours * theirs).sum(1) / np.sqrt((ours**2).sum(1) * (theirs**2).sum(1))


def structural_similarity(ours: Maps, theirs: Maps) -> Float[np.ndarray, " n"]:
    """Return each pair's SSIM, both maps first brought to 0..1.

    Wang et al. 2004, equation 13: an 11x11 Gaussian window of deviation 1.5, within the border
    where the map is large enough for one.
    """
    return np.array([_ssim(_unit(a), _unit(b)) for a, b in zip(ours, theirs, strict=True)])


def _unit(map_):
    map_ = np.asarray(map_, np.float64)
    return (map_ - map_.min()) / max(np.ptp(map_), np.finfo(np.float64).tiny)


def _ssim(x, y):
    smooth = partial(ndimage.gaussian_filter, sigma=1.5, radius=5)
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    inner = similarity[5:-5, 5:-5]
    return (inner if inner.size else similarity).mean()


def agreement(maps: Mapping[str, Maps]) -> Float[np.ndarray, "methods methods"]:
    """Return the mean rank correlation of each pair of methods, in the mapping's order."""
    every = list(maps.values())
    return np.array([[_mean(spearman(a, b)) for b in every] for a in every])


def _mean(values):
    """The mean of those that exist."""
    values = values[~np.isnan(values)]
    return values.mean() if len(values) else np.nan


# --- the randomisation check ---------------------------------------------------------------------


class Likeness(NamedTuple):
    """How alike maps are after a layer was randomised: means over the images."""

    layer: str
    spearman: float
    ssim: float


def layers_from_the_top(f: TappedClassifier, params: Mapping[str, Any], images: Any) -> list[str]:
    """Return the names of the network's parts that have parameters, the last executed first."""
    paths = taps.activation_shapes(lambda _, images, tap: f(images, tap=tap), (), images)
    executed = dict.fromkeys(path.partition("/")[0] for path in paths)
    return [name for name in reversed(list(executed)) if name in params]


def randomized(variables: PyTree, drawn: PyTree, layers: Sequence[str]) -> PyTree:
    """Return the variables with these layers' parameters and statistics taken from `drawn`."""
    theirs = flatten_dict(drawn)
    return unflatten_dict(
        {
            path: theirs[path] if path[1] in layers else leaf
            for path, leaf in flatten_dict(variables).items()
        }
    )


def randomization_check(
    explain: Callable[[PyTree], Maps],
    variables: PyTree,
    drawn: PyTree,
    layers: Sequence[str],
    *,
    cascade: bool = True,
) -> list[Likeness]:
    """Return how alike the maps stay while the layers are randomised, one after the other.

    Adebayo et al. 2018, "Sanity checks for saliency maps", section 3.

    Args:
      explain: variables -> maps.
      drawn: freshly initialised variables.
      layers: from the top, see `layers_from_the_top`.
      cascade: keep those before randomised too, so that the last row is of an untrained network;
        else each alone.
    """
    original, rows = explain(variables), []
    for i, layer in enumerate(layers):
        changed = layers[: i + 1] if cascade else [layer]
        maps = explain(randomized(variables, drawn, changed))
        ssim = structural_similarity(original, maps).mean()
        rows.append(Likeness(layer, _mean(spearman(original, maps)), ssim))
    return rows


def insensitive(cascade: Sequence[Likeness]) -> bool:
    """Return whether the map of the wholly randomised network is still the trained one's."""
    return bool(cascade[-1].spearman > INSENSITIVE)
