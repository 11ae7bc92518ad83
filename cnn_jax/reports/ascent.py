"""Pictures and numbers of images found by ascent."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.reports import figures, html, judged
from cnn_jax.visualize import ascent, image_transforms
from cnn_jax.visualize.ascent import Ascent

FROM_ZEROS = "from zeros"
WAYS = {
    FROM_ZEROS: "From zeros: the score less a penalty on the squares, drawn with the contrast "
    "stretched to the full range.",
    "spectrum": "Spectrum: one that has to score under random shifts, scales and rotations.",
    "photograph": "Photograph: the same, from a photograph.",
}
LUCID = 128  # pixels: the size that Lucid's settings are for

# outside of what `image_transforms.standard` draws from
UNSEEN = image_transforms.random_affine((0.8, 0.9), (10.0, 20.0))


def middle_layer(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the child of the network half way up that has a place for its units."""
    paths = [path for path, shape in shapes.items() if "/" not in path and len(shape) == 3]
    return paths[len(paths) // 2]


def picture_size(f: Callable, own: int, channels: int) -> int:
    """Return the side of pictures for a network of images this large: 128 where that is less."""
    return LUCID if own > LUCID and judged.takes(f, (LUCID, LUCID, channels)) else own


def shown(way: str, found: Ascent) -> list[Float[np.ndarray, "h w c"]]:
    """Return the pictures as they are drawn: those from zeros with their contrast stretched."""
    images = ascent.stretched(found.images) if way == FROM_ZEROS else found.images
    return list(np.asarray(images))


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
    judge: Mapping[str, Any] | None = None,
) -> html.Html:
    """Return the figure, a row a way of WAYS and a column a target, and the table of mean scores.

    Args:
      judge: model, and of each way what another network sees in its pictures, see `judged.judge`.
    """
    captions = [[f"{score:.3g}" for score in np.asarray(each.score)] for each in found.values()]
    if judge:
        captions = [
            [f"{own}\n{_sight(row)}" for own, row in zip(line, judge[way], strict=True)]
            for line, way in zip(captions, found, strict=True)
        ]
    grid = figures.labelled_grid(
        [shown(way, each) for way, each in found.items()],
        [textwrap.fill(name, 16) for name in names],
        captions,
        size=1.3,
        columns=10,
    )
    png = html.figure_png(grid, folder / "ascent.png")
    header = ["way", "score at the start", "score", "under transformations not used"]
    rows = [
        (way, *(float(np.mean(row[k])) for k in ("start", "score", "transformed")))
        for way, row in numbers.items()
    ]
    if judge:
        header.append(f"what {judge['model']} sees")
        rows = [(*row, judged.verdict(judge[row[0]])) for row in rows]
    return html.section(
        "Gradient ascent",
        "Images that excite one unit each as much as possible. "
        + " ".join(WAYS[way] for way in found)
        + " "
        + "Under each picture is its score"
        + (f", and the class that {judge['model']} sees in it." if judge else "."),
        html.figure(png, "One column a target."),
        html.table(header, rows, "Means over the targets."),
    )


def _sight(row: Mapping[str, Any]) -> str:
    """Return what the judge sees, and where it places what there should be seen."""
    if row["rank"] == 1:
        return f"{row['probability']:.0%}"
    return textwrap.fill(f"{row['best']} (own: no. {row['rank']})", 18)
