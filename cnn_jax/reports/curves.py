"""How the cost of a training step grows, as lines of text and as a page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cnn_jax.reports import html
from cnn_jax.reports.figures import BLUE
from cnn_jax.reports.html import Html

Results = Mapping[str, Any]
Row = Mapping[str, Any]


class _Axes(NamedTuple):
    """How a curve is drawn: (least, middle, most) of y at a point, which may be one number."""

    title: str
    x: str
    y: str
    at: Callable[[Row], float]
    of: Callable[[Row], tuple[float, float, float]]


def _spread(name: str) -> Callable[[Row], tuple[float, float, float]]:
    return lambda row: tuple(
        row[name][each] for each in ("first_quartile", "median", "third_quartile")
    )


def _one(number: Callable[[Row], float]) -> Callable[[Row], tuple[float, float, float]]:
    return lambda row: (number(row),) * 3


_AXES = {
    "devices": _Axes(
        "Step time, on fake devices of this machine",
        "devices",
        "ms a step",
        lambda row: row["value"],
        _spread("milliseconds"),
    ),
    "batch": _Axes(
        "Images a second, by the batch",
        "images in a batch",
        "images a second",
        lambda row: row["value"],
        _spread("images_per_second"),
    ),
    "depth": _Axes(
        "Compile time, by the depth",
        "layers",
        "seconds",
        lambda row: row["value"],
        _one(lambda row: row["trace_seconds"] + row["compile_seconds"]),
    ),
    "resolution": _Axes(
        "Memory of a step, by the resolution",
        "side of the image, pixels",
        "MiB",
        lambda row: row["image_size"],
        _one(lambda row: row["program_bytes"] / 2**20),
    ),
}


def title(results: Results) -> str:
    """Return "costs of training resnet20, batch 16, 32 x 32 pixels, float32"."""
    spec = results["spec"]
    size = f"{spec['image_size']} x {spec['image_size']} pixels"
    return f"costs of training {spec['model']}, batch {spec['batch_size']}, {size}, {spec['dtype']}"


def introduction(results: Results) -> str:
    """Return the line that says what was measured on."""
    machine = results["machine"]
    return (
        f"Measured on {machine['cores']} cores of {machine['cpu']}; but for what is varied, each "
        "curve is of this network, batch and size."
    )


def lines(results: Results) -> list[str]:
    """Return what the terminal shows: the subject, and a line a curve."""
    text = [title(results)]
    for name, rows in results["curves"].items():
        axes = _AXES[name]
        points = (f"{axes.at(row):g}: {axes.of(row)[1]:.4g}" for row in rows)
        text.append(f"{axes.y} by {axes.x}: {', '.join(points)}")
    return text


def sections(results: Results, folder: Path) -> list[Html]:
    """Return the page's sections; curves.png, all of them, is left in the folder."""
    png = html.figure_png(drawn(results), folder / "curves.png")
    caption = "Medians over turns, with quartiles where steps were timed."
    tables = [
        html.section(
            axes.title,
            html.table(
                [axes.x, axes.y, "1st quartile", "3rd quartile"],
                [[axes.at(row), *_median_first(axes.of(row))] for row in results["curves"][name]],
            ),
        )
        for name, axes in _AXES.items()
    ]
    machine = [[name, str(value)] for name, value in results["machine"].items()]
    return [
        html.section("Costs", html.figure(png, caption)),
        *tables,
        html.section("Machine and versions", html.table(["", ""], machine)),
    ]


def _median_first(spread: Sequence[float]) -> tuple[float, float, float]:
    first, median, third = spread
    return median, first, third


def drawn(results: Results) -> Figure:
    """Draw the curves beside each other, x by its logarithm."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    for name, axes in zip(_AXES, figure.subplots(2, 2).flat, strict=True):
        how, rows = _AXES[name], results["curves"][name]
        x = [how.at(row) for row in rows]
        first, median, third = zip(*(how.of(row) for row in rows), strict=True)
        axes.fill_between(x, first, third, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(x, median, "o-", color=BLUE, markersize=4)
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{each:g}" for each in x])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(title=how.title, xlabel=how.x, ylabel=how.y, ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    return figure
