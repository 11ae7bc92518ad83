"""Pictures of convolution and pooling, for the page of experiments.convolution."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn_jax import ops
from cnn_jax.ops import Window
from cnn_jax.reports.figures import BLUE, ORANGE

GREY = "#8a94a3"
COLORS = [BLUE, ORANGE, "#3a9d6e", "#a6539b", "#c94f4f", "#5b6b7f"]


def _plain(axes):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def laser_sensor(example: Mapping[str, Any]) -> Figure:
    """The ship's place, its measurements and their weighted average; beside them the weights."""
    figure = Figure(figsize=(9.6, 3), layout="constrained")
    axes, weights = figure.subplots(1, 2, width_ratios=[4, 1])
    t = np.arange(len(example["place"]))
    axes.plot(t, example["measured"], ".", color=GREY, markersize=4, label="measured x(a)")
    axes.plot(t, example["place"], color="black", linewidth=1, label="true place")
    axes.plot(
        t[-len(example["estimate"]) :], example["estimate"], color=ORANGE, linewidth=2,
        label="weighted average s(t)",
    )  # fmt: skip
    axes.set(xlabel="time t", ylabel="place")
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    weights.bar(range(len(example["weights"])), example["weights"], color=BLUE)
    weights.set(xlabel="age t - a", title="weights w")
    weights.set_xticks(range(0, len(example["weights"]), 2))
    for each in (axes, weights):
        _plain(each)
    return figure


def equation(
    grids: Sequence[tuple[np.ndarray, str]], signs: Sequence[str], cell: float = 0.38
) -> Figure:
    """Draw matrices of numbers, or of names, in a row with signs between them.

    Args:
      cell: the side of an entry, inches.
    """
    gap = 1.6  # cells
    height = max(np.shape(values)[0] for values, _ in grids)
    width = sum(np.shape(values)[1] for values, _ in grids) + gap * (len(grids) - 1)
    figure = Figure(figsize=(cell * width, cell * (height + 1)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, -1), aspect="equal")
    axes.set_axis_off()
    left = 0.0
    for (values, title), sign in zip(grids, [*signs, ""], strict=True):
        values = np.asarray(values)
        rows, columns = values.shape
        named = values.dtype == object
        top = (height - rows) / 2
        axes.text(left + columns / 2, top - 0.4, title, ha="center", va="center", fontsize=10)
        numbers = np.zeros(values.shape) if named else values.astype(float)
        shades = numbers / max(np.abs(numbers).max(), 1e-9)
        for (row, column), value in np.ndenumerate(values):
            shade = shades[row, column]
            axes.add_patch(
                Rectangle(
                    (left + column, top + row), 1, 1, edgecolor="white", linewidth=2,
                    facecolor=(BLUE if shade > 0 else ORANGE) if shade else GREY,
                    alpha=0.12 + 0.5 * abs(shade),
                )
            )  # fmt: skip
            axes.text(
                left + column + 0.5, top + row + 0.5, value if named else f"{value:g}",
                ha="center", va="center", fontsize=10,
            )  # fmt: skip
        left += columns + gap
        axes.text(left - gap / 2, height / 2, sign, ha="center", va="center", fontsize=16)
    return figure


def strides(size: int = 7, taps: int = 3, steps: Sequence[int] = (1, 2, 3)) -> Figure:
    """Draw the grid with the first, second and last window of a row, for several strides."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    for axes, step in zip(figure.subplots(1, len(steps)), steps, strict=True):
        window = Window(taps, step)
        count = ops.output_size(size, window)
        for line in range(size + 1):
            axes.plot([0, size], [line, line], color=GREY, linewidth=0.7)
            axes.plot([line, line], [0, size], color=GREY, linewidth=0.7)
        starts = [(0, 0), (0, step), ((count - 1) * step,) * 2]
        for (row, column), color in zip(starts, COLORS, strict=False):
            box = Rectangle((column, row), taps, taps, facecolor=color, alpha=0.35, edgecolor=color)
            axes.add_patch(box)
        for row in range(count):
            for column in range(count):
                axes.plot(column * step + taps / 2, row * step + taps / 2, "o", color="black", ms=4)
        unseen = ops.unused_pixels(size, window)
        if unseen:
            for corner, width, height in (
                ((size - unseen, 0), unseen, size),
                ((0, size - unseen), size - unseen, unseen),
            ):
                axes.add_patch(
                    Rectangle(corner, width, height, facecolor=GREY, alpha=0.3, hatch="///")
                )
        axes.set(xlim=(-0.1, size + 0.1), ylim=(size + 0.1, -0.1), aspect="equal")
        axes.set_title(f"stride {step}: {count}x{count} outputs", fontsize=11)
        axes.set_axis_off()
    return figure


def signed(image: ArrayLike) -> Figure:
    """Draw a map of signed numbers: zero grey, positive light, negative dark."""
    image = np.asarray(image)
    limit = np.quantile(np.abs(image), 0.995)  # a few strong edges may saturate
    return photograph(0.5 + 0.5 * np.clip(image / limit, -1, 1))


def photograph(image: ArrayLike) -> Figure:
    """Draw an image of values in 0..1, grey or RGB, without a frame."""
    image = np.clip(np.asarray(image), 0, 1)
    figure = Figure(figsize=(4.3, 4.3 * image.shape[0] / image.shape[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return figure


def _units(axes, y: float, places: Sequence[int], label: str, lit: Sequence[int] = ()) -> None:
    for number, place in enumerate(places, 1):
        color = ORANGE if place in lit else "white"
        axes.plot(place, y, "o", markersize=20, markerfacecolor=color, markeredgecolor="black")
        axes.text(place, y, f"{label}{number}", ha="center", va="center", fontsize=8)


def connections(example: Mapping[str, Any]) -> Figure:
    """Draw local, tiled, shared and dense layers: one colour a weight."""
    inputs, taps, outputs = example["inputs"], example["taps"], example["outputs"]
    kinds = {
        "local: no weight used twice": lambda unit, tap: unit * taps + tap,
        "tiled: kernels in turn": lambda unit, tap: unit % example["tiles"] * taps + tap,
        "convolution: one kernel": lambda unit, tap: tap,
    }
    counts = [example["parameters"][k] for k in ("local", "tiled", "convolution")]
    figure = Figure(figsize=(9.6, 2.3), layout="constrained")
    for axes, (title, weight), count in zip(
        figure.subplots(1, 4)[:3], kinds.items(), counts, strict=True
    ):
        for unit in range(outputs):
            for tap in range(taps):
                number = weight(unit, tap)
                x, y = [unit + tap, unit + (taps - 1) / 2], [0, 1]
                axes.plot(x, y, color=f"C{number}", linewidth=2.5, zorder=0)
        _line_of_layers(axes, inputs, outputs, (taps - 1) / 2)
        axes.set_title(f"{title}\n{count} weights", fontsize=9)
    axes = figure.axes[3]
    for unit in range(outputs):
        for x in range(inputs):
            axes.plot([x, unit + (taps - 1) / 2], [0, 1], color=GREY, linewidth=1, zorder=0)
    _line_of_layers(axes, inputs, outputs, (taps - 1) / 2)
    axes.set_title(f"dense\n{example['parameters']['dense']} weights", fontsize=9)
    return figure


def _line_of_layers(axes, inputs, outputs, offset):
    for count, y, start in ((inputs, 0, 0), (outputs, 1, offset)):
        axes.plot(
            start + np.arange(count), [y] * count, "o", markersize=12,
            markerfacecolor="white", markeredgecolor="black",
        )  # fmt: skip
    axes.set(xlim=(-0.5, inputs - 0.5), ylim=(-0.3, 1.3))
    axes.set_axis_off()


def sparse_and_dense(units: int = 5, taps: int = 3) -> Figure:
    """Draw which outputs the third input reaches, and which inputs the third output sees."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    boxes = figure.subplots(2, 2)
    middle = units // 2
    for row, from_below in enumerate((True, False)):
        for column, dense in enumerate((False, True)):
            axes = boxes[row, column]
            for x in range(units):
                for s in range(units):
                    if dense or abs(x - s) <= taps // 2:
                        lit = (x if from_below else s) == middle
                        color, width = (ORANGE, 2) if lit else (GREY, 0.8)
                        axes.plot([x, s], [0, 1], color=color, linewidth=width, zorder=int(lit) - 1)
            near = [u for u in range(units) if dense or abs(u - middle) <= taps // 2]
            _units(axes, 0, range(units), "x", [middle] if from_below else near)
            _units(axes, 1, range(units), "s", near if from_below else [middle])
            axes.set(xlim=(-0.5, units - 0.5), ylim=(-0.35, 1.35))
            axes.set_axis_off()
            kind = "dense" if dense else f"convolution, k = {taps}"
            what = "what x3 reaches" if from_below else "what s3 sees"
            axes.set_title(f"{kind}: {what}", fontsize=10)
    return figure


def receptive_fields(growth: dict[str, list[int]], units: int = 9, depth: int = 3) -> Figure:
    """Draw a deep unit's inputs, and the field's size against depth."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    tree, curves = figure.subplots(1, 2, width_ratios=[1.2, 1])
    middle = units // 2
    for layer in range(depth):
        reach = depth - layer
        for x in range(units):
            for tap in (-1, 0, 1):
                s = x + tap
                if not 0 <= s < units:
                    continue
                lit = abs(x - middle) <= reach and abs(s - middle) <= reach - 1
                color, width = (ORANGE, 2) if lit else (GREY, 0.5)
                tree.plot([x, s], [layer, layer + 1], color=color, linewidth=width, zorder=0)
    for layer in range(depth + 1):
        lit = [u for u in range(units) if abs(u - middle) <= depth - layer]
        for unit in range(units):
            face = ORANGE if unit in lit else "white"
            tree.plot(unit, layer, "o", ms=11, markerfacecolor=face, markeredgecolor="black")
        name = "input" if layer == 0 else f"layer {layer}"
        tree.text(-0.8, layer, f"{name}\nsees {1 + 2 * layer}", ha="right", va="center", fontsize=8)
    tree.set(xlim=(-2.4, units - 0.5), ylim=(-0.4, depth + 0.4))
    tree.set_axis_off()
    for (name, sizes), color in zip(growth.items(), COLORS, strict=False):
        style = "o:" if "dilation" in name else "o-"  # it grows as stride 2 does
        depths = range(1, len(sizes) + 1)
        curves.plot(depths, sizes, style, color=color, label=name, markersize=4)
    curves.set(xlabel="3-tap layers", ylabel="pixels seen", yscale="log")
    curves.legend(frameon=False, fontsize=8)
    _plain(curves)
    return figure


def invariance(example: Mapping[str, Any]) -> Figure:
    """Change of the detector stage's output against the shift, for several poolings."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, changes), color in zip(example["change"].items(), COLORS, strict=False):
        axes.plot(changes, "o-", label=name, color=color, markersize=4)
    axes.set(xlabel="shift of the photograph, pixels", ylabel="relative change", ylim=(0, None))
    axes.set_xticks(range(max(map(len, example["change"].values()))))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _plain(axes)
    return figure


def learned_invariance(example: Mapping[str, Any]) -> Figure:
    """Answers of single detectors and of maxout to a turning bar."""
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, answers in enumerate(example["answers"].T):
        label = "one detector each" if i == 0 else None
        axes.plot(example["angles"], answers, color=GREY, linewidth=1, label=label)
    axes.plot(example["angles"], example["pooled"], color=ORANGE, linewidth=2.5, label="maxout")
    axes.set(xlabel="angle of the bar, degrees", ylabel="answer", ylim=(0, 1.08))
    axes.set_xticks(range(0, 181, 45))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _plain(axes)
    return figure


def strided_convolution(units: int = 5, taps: int = 3, stride: int = 2) -> Figure:
    """Draw a strided convolution, and beside it one of stride 1 whose results are dropped."""
    figure = Figure(figsize=(9.6, 3), layout="constrained")
    kept = range(0, units, stride)
    for axes, centres in zip(figure.subplots(1, 2), (kept, range(units)), strict=True):
        for centre in centres:
            for x in range(max(centre - taps // 2, 0), min(centre + taps // 2 + 1, units)):
                color = ORANGE if centre in kept else GREY
                axes.plot([x, centre], [0, 1], color=color, linewidth=2, zorder=0)
        _units(axes, 0, range(units), "x")
        axes.set(xlim=(-0.5, units - 0.5), ylim=(-0.35, 2.35))
        axes.set_axis_off()
    alone, dropping = figure.axes
    _units(alone, 1, kept, "s", kept)
    alone.set_title(f"stride {stride}", fontsize=10, y=0.6)
    for place in kept:
        dropping.plot([place, place], [1, 2], color=ORANGE, linewidth=2, zorder=0)
    _units(dropping, 1, range(units), "z", kept)
    _units(dropping, 2, kept, "s", kept)
    dropping.set_title("stride 1, then every second result", fontsize=10)
    return figure


def zero_padding(example: Mapping[str, Any]) -> Figure:
    """Draw the units of each layer without and with padding."""
    figure = Figure(figsize=(9.6, 2.6), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("valid", "same"), strict=True):
        for layer, count in enumerate(example[kind]):
            x = np.arange(count) - (count - 1) / 2
            axes.plot(x, [layer] * count, "o", color=BLUE, markersize=7)
            axes.text(
                example["size"] / 2 + 0.6, layer, f"{count}", va="center", fontsize=9, color=GREY
            )
        axes.set(ylim=(-0.5, len(example["valid"]) - 0.5))
        axes.set_axis_off()
        axes.set_title("without padding" if kind == "valid" else "zero padding", fontsize=10)
    return figure
