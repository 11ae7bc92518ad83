"""Figures of a run, drawn by matplotlib without a display."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE = "#2563b8", "#d9822b"


def training_curves(log: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, accuracy (where the task has one) and learning rate against the step.

    Args:
      log: lines of metrics.jsonl, as training.log.read_log gives them.
    """
    trained = [line for line in log if "loss" in line]
    tested = [line for line in log if "eval_loss" in line]
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)

    def plot(axes, lines, key, label, color, transform=lambda y: y):
        lines = [line for line in lines if key in line]
        style = "-" if len(lines) > 1 else "o"
        steps = [line["step"] for line in lines]
        values = [transform(line[key]) for line in lines]
        axes.plot(steps, values, style, label=label, color=color, markersize=5)

    plot(loss, trained, "loss", "training", BLUE)
    plot(accuracy, trained, "accuracy", "training", BLUE)
    accuracy.set_visible(any("accuracy" in line for line in trained))
    plot(rate, trained, "learning_rate", "learning rate", BLUE)
    if tested:
        plot(loss, tested, "eval_loss", "test", ORANGE)
        if "eval_top1_error" in tested[0]:
            plot(accuracy, tested, "eval_top1_error", "test", ORANGE, lambda y: 1 - y)
        else:
            plot(accuracy, tested, "eval_pixel_accuracy", "test", ORANGE)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes, title in (
        (loss, "loss (nats)"),
        (accuracy, "accuracy"),
        (rate, "learning rate"),
    ):
        _plain(axes)
        axes.set(title=title, xlabel="step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if axes is not rate:
            axes.legend(frameon=False)
    return figure


def confusion_matrix(confusion: Int[np.ndarray, "k k"], class_names: Sequence[str]) -> Figure:
    """Rows of true and columns of predicted classes, shaded by the share of the row.

    Up to twenty classes are written out; of more, the picture alone is drawn.
    """
    confusion = np.asarray(confusion)
    classes = len(confusion)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 5.0 if classes <= 20 else 7.0
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # the square root shows the few mistakes beside the many hits
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= 20:
        names = [*class_names, *map(str, range(len(class_names), classes))]
        axes.set_xticks(range(classes), names, rotation=45 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(classes), names)
        for row, column in np.argwhere(confusion):
            color = "white" if share[row, column] > 0.3 else "black"
            text = str(confusion[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    return figure


def accuracy_by_class(
    per_class: Mapping[str, float | None], most: int = 40, label: str = "accuracy"
) -> Figure:
    """Bars of accuracy, of the worst classes where there are many."""
    known = {name: value for name, value in per_class.items() if value is not None}
    if len(known) > most:
        known = dict(sorted(known.items(), key=lambda item: item[1])[:most])
    figure = Figure(figsize=(5.5, 0.6 + 0.28 * len(known)), layout="constrained")
    axes = figure.subplots()
    names = list(known)[::-1]
    bars = axes.barh(names, [known[name] for name in names], color=BLUE)
    axes.bar_label(bars, [f"{known[name]:.1%}" for name in names], padding=3, fontsize=8)
    axes.set(xlim=(0, 1.12), xlabel=label)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _plain(axes)
    return figure


def image_grid(
    images: Sequence[Float[np.ndarray, "h w c"]],
    titles: Sequence[str] | None = None,
    columns: int = 8,
    size: float = 1.2,
) -> Figure:
    """Images side by side, each in its own box, pixels kept square and unsmoothed.

    Args:
      images: uint8, or floats in 0..1; one channel is drawn as grey.
      size: of a box, in inches.
    """
    columns = min(columns, max(len(images), 1))
    rows = -(-len(images) // columns)
    height = size + (0.25 if titles else 0.05)
    figure = Figure(figsize=(columns * (size + 0.05), rows * height), layout="constrained")
    boxes = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
    for axes in boxes:
        axes.set_axis_off()
    for i, image in enumerate(images):
        image = np.asarray(image)
        grey = image.shape[-1] == 1
        limit = 255 if image.dtype == np.uint8 else 1
        pixels = image[..., 0] if grey else image
        cmap = "gray" if grey else None
        boxes[i].imshow(pixels, cmap=cmap, vmin=0, vmax=limit, interpolation="nearest")
        if titles:
            boxes[i].set_title(titles[i], fontsize=9, pad=3)
    return figure


def labelled_grid(
    rows: Sequence[Sequence[Float[np.ndarray, "h w c"]]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    size: float = 1.1,
    columns: int | None = None,
) -> Figure:
    """Rows of images, with a title over each column and a caption under each image.

    Args:
      rows: floats in 0..1 or uint8, a row as long as the titles; one channel is drawn as grey.
      size: of an image's width, in inches.
      columns: at most so many; more titles go on below. None: all beside each other.
    """
    height, width = np.shape(rows[0][0])[:2]
    tall = size * height / width
    columns = min(columns or len(titles), len(titles))
    bands = -(-len(titles) // columns)
    lines = max([text.count("\n") for row in captions for text in row], default=0)
    figure = Figure(
        figsize=(
            columns * (size + 0.06),
            bands * (len(rows) * (tall + 0.25 + 0.12 * lines) + 0.4),
        ),
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    boxes = figure.subplots(bands * len(rows), columns, squeeze=False)
    for box in boxes[(bands - 1) * len(rows) :, len(titles) - (bands - 1) * columns :].flat:
        box.set_axis_off()
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            axes = boxes[j // columns * len(rows) + i, j % columns]
            image = np.asarray(image)
            limit = 255 if image.dtype == np.uint8 else 1
            grey = image.shape[-1] == 1
            pixels = image[..., 0] if grey else image
            cmap = "gray" if grey else None
            axes.imshow(pixels, cmap=cmap, vmin=0, vmax=limit, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(captions[i][j], fontsize=8, labelpad=2)
            if i == 0:
                axes.set_title(titles[j], fontsize=8, pad=3)
    return figure


def _plain(axes) -> None:
    """Leave only the left and lower spine."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
