"""Figures of the experiments that look into a network."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from cnn_jax.visualize.mosaic import mosaic

_CELL = 128  # pixels of a picture in a table


def heat(map_: Float[np.ndarray, "h w"], signed: bool = False) -> Float[np.ndarray, "h w 3"]:
    """Return a map in colours, scaled by its 99th percentile.

    Signed maps are red where they speak for the class and blue where against; others go from black
    over red to yellow.
    """
    map_ = np.asarray(map_, np.float64)
    largest = max(np.percentile(np.abs(map_), 99), np.finfo(np.float64).tiny)
    if signed:
        return matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * np.clip(map_ / largest, -1, 1))[..., :3]
    low = map_.min()
    span = max(np.percentile(map_, 99.5) - low, np.finfo(np.float64).tiny)
    return matplotlib.colormaps["inferno"](np.clip((map_ - low) / span, 0, 1))[..., :3]


def colour(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w 3"]:
    """Return an image in 0..1 with three channels; what is transparent is put on white."""
    image = np.clip(np.asarray(image, np.float64), 0, 1)
    if image.shape[-1] == 4:
        opacity = image[..., 3:]
        return image[..., :3] * opacity + 1 - opacity
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def picture_table(
    rows: Sequence[Sequence[Float[np.ndarray, "h w 3"]]],
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    size: float = 0.95,
) -> Figure:
    """Pictures in rows and columns, each in a square of `size` inches."""
    cells = [resized(picture, _CELL) for row in rows for picture in row]
    columns, gap = len(rows[0]), _CELL // 16
    whole = mosaic(cells, columns, gap=gap, background=1.0)
    figure = Figure(figsize=(columns * size + 1.0, len(rows) * size + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(whole, interpolation="nearest", aspect="equal")
    at = _CELL / 2 + (_CELL + gap) * np.arange(max(columns, len(rows)))
    names = [title.replace(" ", "\n", 1) for title in column_titles]
    axes.set_xticks(at[:columns], names, fontsize=8)
    axes.set_yticks(at[: len(rows)], row_titles, fontsize=8)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def resized(picture: Float[np.ndarray, "h w 3"], side: int) -> Float[np.ndarray, "side side 3"]:
    """Return a picture in 0..1 as a square of this side: enlarged unsmoothed, reduced smoothly."""
    pixels = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    larger = side >= max(picture.shape[:2])
    way = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return np.asarray(pixels.resize((side, side), way)) / 255


def one_picture(picture: Float[np.ndarray, "h w c"], width: float = 6.0) -> Figure:
    """One array as an image, its pixels unsmoothed, so many inches wide."""
    height = width * picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(colour(picture), interpolation="nearest")
    axes.set_axis_off()
    return figure


def points(
    places: Float[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> Figure:
    """Points coloured by class: up to twenty have a legend, of up to sixty each its name in it."""
    there, drawn = np.unique(labels), []
    few = len(there) <= 20
    figure = Figure(figsize=(5.4, 4.6) if few else (8.0, 6.4), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab10" if labels.max() < 10 else "tab20"]
    for label in there:
        style = {"color": colours(label % colours.N), "s": 9}
        drawn.append(axes.scatter(*places[labels == label].T, **style))
    if few:
        names = [class_names[label] for label in there]
        axes.legend(
            drawn, names, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
        )
    elif len(there) <= 60:
        for label in there:  # on that of its points which is nearest to all of them
            own = places[labels == label]
            middle = own[np.abs(own[:, None] - own).sum(axis=(1, 2)).argmin()]
            halo = [withStroke(linewidth=1.5, foreground="white")]
            axes.text(
                *middle, class_names[label], fontsize=6, ha="center", va="bottom", path_effects=halo
            )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure


def matrix(values: Float[np.ndarray, "k k"], names: Sequence[str]) -> Figure:
    """A table of correlations, in colours and numbers."""
    side = 1.6 + 0.42 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            shade = "white" if abs(value) > 0.6 else "black"
            text = f"{value:.2f}".replace("0.", ".", 1)
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=7)
    return figure


def curves(
    named: Mapping[str, Float[np.ndarray, " steps"]], title: str, ylabel: str, xlabel: str
) -> Figure:
    """Mean curves of several methods over the share of something, 0 to 1."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab20"]
    for i, (name, values) in enumerate(named.items()):
        dash = "--" if "control" in name else "-"
        style = {"color": colours(i % 20), "label": name, "linestyle": dash, "linewidth": 1.3}
        axes.plot(np.linspace(0, 1, len(values)), values, **style)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure


def cascade(layers: Sequence[str], named: Mapping[str, Sequence[float]], ylabel: str) -> Figure:
    """The likeness of maps, layer after layer from the top."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab20"]
    for i, (name, values) in enumerate(named.items()):
        dash = "--" if "control" in name else "-"
        axes.plot([1.0, *values], dash, color=colours(i % 20), label=name, linewidth=1.3)
    axes.set_xticks(
        range(len(layers) + 1), ["trained", *layers], rotation=60, ha="right", fontsize=7
    )
    axes.set(ylabel=ylabel, ylim=(-0.5, 1.05))
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure
