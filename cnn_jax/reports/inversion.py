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
) -> html.Html:
    """Return the figure, a row an image and a column a layer, and the table of errors."""
    columns = [("image", pixels, None)]
    columns += [(path, found.images, found.error) for path, found in inversions.items()]
    grid = figures.labelled_grid(
        [
            [np.clip(np.asarray(images[i]), 0, 1) for _, images, _ in columns]
            for i in range(len(pixels))
        ],
        [path.replace("_", "\n") for path, _, _ in columns],
        [
            [name] + [f"{float(error[i]):.1e}" for _, _, error in columns[1:]]
            for i, name in enumerate(names)
        ],
    )
    png = html.figure_png(grid, folder / "feature_inversion.png")
    return html.section(
        "Feature inversion",
        "Each picture was found by descent from the same noise, until its activations at the layer "
        "above it are those of the image on the left: ||φ(x) − φ₀||² / ||φ₀||² is written below "
        "each. What the picture shows beyond that is the penalty's choice, not the layer's.",
        html.figure(png, "A column a layer, from the first to the last."),
        html.table(
            ["layer", "activation", "error at the start", "error", "pixels' RMS difference"],
            [
                (
                    row["layer"],
                    " x ".join(map(str, row["shape"])),
                    float(np.mean(row["start"])),
                    float(np.mean(row["error"])),
                    float(np.mean(row["pixel_rms"])),
                )
                for row in numbers
            ],
            "Means over the images; the error at the start includes the penalty.",
        ),
    )
