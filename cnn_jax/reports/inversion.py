"""Pictures and numbers of inverted features: a column a layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cnn_jax.reports import figures, html
from cnn_jax.visualize.inversion import Inversion


def rows(
    inversions: Mapping[str, Inversion],
    pixels: Float[np.ndarray, "m h w c"],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[dict[str, Any]]:
    """Return of each layer its size, the error at the start and the end, and that of the pixels."""
    return [
        {
            "layer": path,
            "shape": shapes[path],
            "start": np.asarray(found.history[0]),
            "error": np.asarray(found.error),
            "pixel_rms": np.sqrt(np.mean((found.images - pixels) ** 2, axis=(1, 2, 3))),
        }
        for path, found in inversions.items()
    ]


def section(
    inversions: Mapping[str, Inversion],
    pixels: Float[np.ndarray, "m h w c"],
    names: Sequence[str],
    numbers: Sequence[Mapping[str, Any]],
    folder: Path,
    judge: Mapping[str, Any] | None = None,
) -> html.Html:
    """Return the figure, a row an image and a column a layer, and the table of errors.

    Args:
      judge: model, and how far each layer's pictures are from the images to another network, see
        `judged.differences`.
    """
    columns = [("image", pixels, None)]
    columns += [(path, found.images, found.error) for path, found in inversions.items()]
    grid = figures.labelled_grid(
        [
            [np.clip(np.asarray(images[i]), 0, 1) for _, images, _ in columns]
            for i in range(len(pixels))
        ],
        [path.replace("_", "\n") for path, _, _ in columns],
        [
            [name] + [_caption(path, i, float(error[i]), judge) for path, _, error in columns[1:]]
            for i, name in enumerate(names)
        ],
    )
    png = html.figure_png(grid, folder / "feature_inversion.png")
    header = ["layer", "activation", "error at the start", "error", "pixels' RMS difference"]
    lines = [
        (
            row["layer"],
            " x ".join(map(str, row["shape"])),
            float(np.mean(row["start"])),
            float(np.mean(row["error"])),
            float(np.mean(row["pixel_rms"])),
        )
        for row in numbers
    ]
    if judge:
        header.append(f"distance to {judge['model']}")
        lines = [(*line, float(np.mean(judge["distance"][line[0]]))) for line in lines]
    return html.section(
        "Feature inversion",
        "Each picture was found by descent from the same noise, until its activations at the layer "
        "above it are those of the image on the left: ||φ(x) − φ₀||² / ||φ₀||² is written below "
        "each. What the picture shows beyond that is the penalty's choice, not the layer's.",
        html.figure(png, "A column a layer, from the first to the last."),
        html.table(
            header, lines, "Means over the images; the error at the start includes the penalty."
        ),
        *([html.paragraph(_explained(judge))] if judge else []),
    )


def _caption(path: str, i: int, error: float, judge: Mapping[str, Any] | None) -> str:
    return f"{error:.1e}" + (f"\n{float(judge['distance'][path][i]):.2f} away" if judge else "")


def _explained(judge: Mapping[str, Any]) -> str:
    return (
        f"How far away a picture is from its image is told by {judge['model']}, which had no part "
        "in it: of its features the channels of each place are scaled to unit length, and their "
        "squared differences averaged over the places and summed over the layers "
        f"{', '.join(judge['layers'])} (Zhang et al. 2018, without weights). The images' mean "
        f"colours alone are {float(np.mean(judge['mean_color'])):.2f} away."
    )
