"""Sections about the layers: filters, activations, what excites a channel, and what lies near."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cnn_jax import taps, trained
from cnn_jax.errors import UsageError, unknown
from cnn_jax.reports import explanation_figures as figures
from cnn_jax.reports import html
from cnn_jax.reports.html import Html
from cnn_jax.reports.run_page import Picture
from cnn_jax.trained import Trained
from cnn_jax.visualize import activations, embedding, filters
from cnn_jax.visualize.batching import Progress, in_batches, no_progress
from cnn_jax.visualize.grad_cam import require_extent
from cnn_jax.visualize.mosaic import mosaic

_THUMBNAIL = 64  # pixels of an image's side on the map, at most


def spread(shapes: dict[str, tuple], count: int = 4) -> list[str]:
    """Return some layers with rows and columns, spread over the network's blocks."""
    spatial = [path for path, shape in shapes.items() if len(shape) == 3 and "/" not in path]
    places = np.linspace(0, len(spatial) - 1, min(count, len(spatial))).round().astype(int)
    return [spatial[i] for i in dict.fromkeys(places.tolist())]


def features_layer(shapes: dict[str, tuple]) -> str:
    """Return the last layer before the logits that has one vector an image."""
    vectors = [path for path, shape in shapes.items() if len(shape) == 1]
    if len(vectors) < 2:
        raise UsageError("no layer before the logits has one vector an image; give --layer")
    return vectors[-2]


def filters_section(
    network: Trained,
    shapes: dict[str, tuple],
    layers: Sequence[str],
    normalization: str,
    picture: Picture,
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section of these layers' filters, the first by default."""
    kernels = filters.kernels(network.variables["params"], shapes)
    if not kernels:
        raise UsageError("this network has no convolution over images, so no filters to show")
    results: dict[str, Any] = {"known_layers": list(kernels), "layers": {}}
    parts = []
    for layer in layers or [next(iter(kernels))]:
        if layer not in kernels:
            raise unknown("layer with filters", layer, kernels)
        kernel = kernels[layer]
        norms = np.sqrt((kernel.astype(np.float64) ** 2).sum(axis=(0, 1, 2)))
        results["layers"][layer] = {
            "shape": kernel.shape,
            "norms": norms,
            "least": float(kernel.min()),
            "largest": float(kernel.max()),
        }
        height, width, channels, count = kernel.shape
        shown = "as images" if channels in (1, 3) else "a row each, a column an input channel"
        array = filters.filter_picture(kernel, normalization)
        parts.append(
            picture(
                figures.one_picture(array, min(6.0, 0.035 * array.shape[1] + 1)),
                f"filters_{layer.replace('/', '.')}",
                f"{layer}: {count} filters of {height}x{width}x{channels}, {shown}; lengths "
                f"{norms.min():.2g} to {norms.max():.2g}.",
            )
        )
    return results, html.section("Filters", html.figures(*parts))


def activations_section(
    network: Trained,
    image: Float[np.ndarray, "h w c"],
    layers: Sequence[str],
    picture: Picture,
    most: int = 64,
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section of one image's activations, channel by channel."""
    f = trained.classifier(network)
    run = jax.jit(
        lambda f, images: taps.activations(
            lambda _, images, tap: f(images, tap=tap), (), images, layers
        )[1]
    )
    seen = {path: np.asarray(value) for path, value in run(f, jnp.asarray(image)[None]).items()}
    results, parts = {}, []
    for layer in layers:
        activation = seen[layer]
        require_extent(layer, activation.shape)
        maps = np.moveaxis(activation[0], -1, 0)[:most]
        low, high = (end(maps, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
        maps = ((maps - low) / np.where(high > low, high - low, 1))[..., None]
        share = np.asarray(activations.used_share(activation))
        results[layer] = {"shape": activation.shape[1:], "positive_share": share}
        parts.append(
            picture(
                figures.one_picture(mosaic(maps, 16, background=0.5), 6.4),
                f"activation_{layer.replace('/', '.')}",
                f"{layer}, {'x'.join(map(str, activation.shape[1:]))}: {len(maps)} channels, each "
                f"on its own scale; {np.mean(share):.0%} of the entries are positive.",
            )
        )
    return results, html.section("One image on its way", *parts)


def patches_section(
    network: Trained,
    images: Float[np.ndarray, "n h w c"],
    layers: Sequence[str],
    picture: Picture,
    *,
    channels: int = 8,
    count: int = 9,
    batch_size: int,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section of the image patches that excite channels most."""
    results, parts = {}, []
    for layer in layers:
        f = trained.layer(network, layer)
        found = activations.peaks(f, images, count, batch_size=batch_size, progress=progress)
        # those of the strongest channels; a dead one has nothing to show
        strongest = np.sort(np.argsort(-found.values[:, 0], kind="stable")[:channels])
        chosen = activations.Peaks(*(each[strongest] for each in found))
        cut = activations.patches(f, images, chosen)
        rows = [[figures.colour(patch) for patch in row] for row in cut]
        results[layer] = {
            "channels": strongest,
            "dead": int((found.values[:, 0] <= 0).sum()),
            "values": chosen.values,
            "images": chosen.images,
        }
        size = "x".join(map(str, cut.shape[2:4]))
        parts.append(
            picture(
                figures.picture_table(
                    rows,
                    [f"channel {k}" for k in strongest],
                    [f"{i + 1}" for i in range(cut.shape[1])],
                    0.6,
                ),
                f"patches_{layer.replace('/', '.')}",
                f"{layer}: the patches, of {size} pixels, that excite a channel most, of "
                f"{len(images)} images.",
            )
        )
    return results, html.section("What excites a channel", html.figures(*parts))


def embedding_section(
    network: Trained,
    layer: str,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    key: Array,
    picture: Picture,
    *,
    queries: int = 8,
    perplexity: float = 30.0,
    batch_size: int,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section of neighbours and t-SNE, of features beside pixels."""
    run = jax.jit(lambda f, images: f(images))
    f = trained.layer(network, layer)
    features = in_batches(
        lambda batch: run(f, batch), images, batch_size=batch_size, progress=progress
    )
    spaces = {"features": embedding.flat(features), "pixels": embedding.flat(images)}
    count = min(10, len(images) - 1)
    near = {name: embedding.nearest(space, count) for name, space in spaces.items()}
    recalls = {name: embedding.recall_at(found, labels) for name, found in near.items()}
    results: dict[str, Any] = {"layer": layer, "images": len(images), "recall": recalls}
    right = {name: labels[found[:, 0]] == labels for name, found in near.items()}
    results["classes"] = _by_class(right, labels, labels[near["features"][:, 0]], class_names)
    # those whose nearest neighbour by pixels is of another class, or those first, over all classes
    wrong = ~right["pixels"]
    pool = np.argsort(~wrong, kind="stable")[: max(queries, wrong.sum())]
    shown = pool[np.linspace(0, len(pool) - 1, min(queries, len(pool))).astype(int)]
    rows = [
        [
            figures.colour(images[i]),
            *(_framed(images[j], labels[j] == labels[i]) for j in near["features"][i, :5]),
            *(_framed(images[j], labels[j] == labels[i]) for j in near["pixels"][i, :5]),
        ]
        for i in shown
    ]
    titles = ["query", *(f"features {k + 1}" for k in range(min(5, count)))]
    titles += [f"pixels {k + 1}" for k in range(min(5, count))]
    table = html.table(
        ["neighbours in", *(f"recall@{k}" for k in recalls["features"])],
        [[name, *found.values()] for name, found in recalls.items()],
    )
    parts = [
        f"Each of {len(images)} images among all others, by the activation of {layer} or by its "
        "pixels. Recall@k: the share with one of its own class among the k nearest.",
        table,
        picture(
            figures.picture_table(rows, [class_names[labels[i]] for i in shown], titles, 0.65),
            "neighbours",
            "Nearest neighbours in feature space and in pixel space, of images that pixels get "
            "wrong where there are such; green: the same class, red: another.",
        ),
    ]
    perplexity = min(perplexity, (len(images) - 1) / 3)
    points = embedding.tsne(spaces["features"], key, perplexity)
    results["perplexity"] = perplexity
    results["tsne_recall"] = embedding.recall_at(embedding.nearest(points, count), labels)
    side = min(images.shape[1], _THUMBNAIL)
    small = embedding.thumbnails(
        points, np.stack([figures.resized(figures.colour(image), side) for image in images])
    )
    parts.append(
        html.figures(
            picture(
                figures.points(points, labels, class_names),
                "tsne_points",
                f"t-SNE of {layer}, perplexity {perplexity:g}; in the plane, recall@1 is "
                f"{results['tsne_recall'][1]:.1%}.",
            ),
            picture(
                figures.one_picture(small, max(5.0, small.shape[1] / 192)),
                "tsne_thumbnails",
                "The images themselves, each on a cell of a grid, as near to its point as all can.",
            ),
        )
    )
    parts.append(_class_table(results["classes"]))
    return results, html.section("What lies near what", *parts)


def _by_class(
    right: Mapping[str, Bool[np.ndarray, " n"]],
    labels: Int[np.ndarray, " n"],
    nearest: Int[np.ndarray, " n"],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return of each class its recall@1 in each space, and what it is most often taken for.

    Args:
      right: by space, whether each image's nearest neighbour is of its class.
      nearest: the class of each image's nearest neighbour by features.
    """
    found = []
    for label in np.unique(labels):
        own = labels == label
        others, counts = np.unique(nearest[own & (nearest != label)], return_counts=True)
        recall = {name: float(each[own].mean()) for name, each in right.items()}
        other = class_names[others[counts.argmax()]] if len(others) else None
        row = {"class": class_names[label], "images": int(own.sum()), "taken_for": other}
        found.append(row | {"recall@1": recall})
    return found


def _class_table(classes: Sequence[Mapping[str, Any]], most: int = 60) -> Html:
    """Return the table of the classes, those first whose features say least."""
    rows = [
        (row["class"], row["images"], *row["recall@1"].values(), row["taken_for"])
        for row in sorted(classes, key=lambda row: row["recall@1"]["features"])
    ]
    header = ["class", "images", "recall@1 of features", "of pixels", "most often taken for"]
    which = "Class by class" if len(rows) <= most else f"The {most} hardest classes"
    return html.table(header, rows[:most], f"{which}: whose nearest neighbour is of the class.")


def _framed(image, same):
    """Return the image in a frame, green or red."""
    frame = np.array([0.1, 0.65, 0.2] if same else [0.85, 0.15, 0.1])
    width = max(1, image.shape[0] // 14)
    border = ((width, width), (width, width), (0, 0))
    inside = np.pad(np.ones(image.shape[:2] + (1,), bool), border)
    return np.where(inside, np.pad(figures.colour(image), border), frame)
