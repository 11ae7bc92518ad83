"""Pictures and numbers of images found by ascent."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from cnn_jax.reports import figures, html
from cnn_jax.visualize import ascent, image_transforms
from cnn_jax.visualize.ascent import Ascent

# outside of what `image_transforms.standard` draws from
UNSEEN = image_transforms.random_affine((0.8, 0.9), (10.0, 20.0))


def middle_layer(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the child of the network half way up that has a place for its units."""
    paths = [path for path, shape in shapes.items() if "/" not in path and len(shape) == 3]
    return paths[len(paths) // 2]


def numbers(
    f: Callable[[Array], Array],
    objective: ascent.Objective,
    found: Mapping[str, Ascent],
    key: Array,
) -> dict[str, dict[str, Any]]:
    """Return of each way the scores: at the start, reached, and under unseen transformations."""
    return {
        way: {
            "start": np.asarray(each.start),
            "score": np.asarray(each.score),
            "transformed": np.asarray(
                ascent.under_transformations(
                    f, objective, each.images, UNSEEN, jax.random.fold_in(key, 1)
                )
            ),
        }
        for way, each in found.items()
    }


def section(
    found: Mapping[str, Ascent],
    names: Sequence[str],
    numbers: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> html.Html:
    """Return the figure, a row a way and a column a target, and the table of mean scores."""
    grid = figures.labelled_grid(
        [list(np.asarray(each.images)) for each in found.values()],
        list(names),
        [[f"{score:.3g}" for score in np.asarray(each.score)] for each in found.values()],
    )
    png = html.figure_png(grid, folder / "ascent.png")
    return html.section(
        "Gradient ascent",
        "Images that excite one unit each as much as possible. Above: from zeros, the score less a "
        "penalty on the squares. Below: a spectrum that has to score under random shifts, scales "
        "and rotations. Under each picture is its score.",
        html.figure(png, "One column a target."),
        html.table(
            ["way", "score at the start", "score", "under transformations not used"],
            [
                (way, *(float(np.mean(row[k])) for k in ("start", "score", "transformed")))
                for way, row in numbers.items()
            ],
            "Means over the targets.",
        ),
    )
