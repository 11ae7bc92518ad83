"""The pictures and the page of a detector: boxes and masks over images, AP by class, errors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn_jax.reports import html
from cnn_jax.reports.html import Html
from cnn_jax.training.log import read_log

# By class, from Okabe & Ito's palette and lighter turns of it: told apart by the colour-blind too.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")


def draw_objects(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "n 4"],
    titles: Sequence[str],
    colours: Sequence[str],
    axes: Any,
    masks: Bool[np.ndarray, "n h w"] | None = None,
) -> None:
    """Draw boxes, their titles and tinted masks over an image."""
    axes.set_axis_off()
    shown = image.astype(np.float32) / 255
    for i in range(0 if masks is None else len(masks)):
        tint = np.array([int(colours[i][j : j + 2], 16) for j in (1, 3, 5)]) / 255
        shown = np.where(masks[i][..., None], 0.45 * shown + 0.55 * tint, shown)
    axes.imshow(shown, interpolation="nearest")
    for (x1, y1, x2, y2), title, colour in zip(boxes, titles, colours, strict=True):
        # a pixel's square reaches half a pixel around its number
        corner = (x1 - 0.5, y1 - 0.5)
        axes.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.4))
        label = {"facecolor": colour, "alpha": 0.85, "pad": 0.8, "edgecolor": "none"}
        axes.text(*corner, title, fontsize=6, color="black", va="bottom", bbox=label)


def pictures(examples: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> Figure:
    """Pairs of pictures: the truth, and what was found.

    Each example holds image, and of "truth" and "found" boxes, labels and masks (or None), and the
    scores of what was found.
    """
    columns = 4
    rows = -(-2 * len(examples) // columns)
    figure = Figure(figsize=(columns * 2.3, rows * 2.5), layout="constrained")
    cells = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
    for axes in cells:
        axes.set_axis_off()
    for i, example in enumerate(examples):
        for j, side in enumerate(("truth", "found")):
            labels = example[side]["labels"]
            titles = [class_names[label] for label in labels]
            if side == "found":
                scores = example["found"]["scores"]
                titles = [f"{t} {s:.2f}" for t, s in zip(titles, scores, strict=True)]
            colours = [COLOURS[(label - 1) % len(COLOURS)] for label in labels]
            axes, boxes = cells[2 * i + j], example[side]["boxes"]
            draw_objects(example["image"], boxes, titles, colours, axes, example[side]["masks"])
            axes.set_title(side, fontsize=7, pad=8)
    return figure


def loss_curves(log: Sequence[Mapping[str, float]]) -> Figure:
    """The total loss and each of its terms against the step."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.subplots()
    others = {"step", "gradient_norm", "learning_rate", "images_per_second"}
    for name in [name for name in log[-1] if name not in others]:
        steps = [line["step"] for line in log]
        axes.plot(steps, [line[name] for line in log], label=name.replace("_", " "))
    axes.set(xlabel="step", title="loss (nats and smooth L1)", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=2, fontsize=8)
    return figure


def write(workdir: Path, results: Mapping[str, Any], shown: Figure) -> None:
    """Write pictures and report.html of what results.json holds."""
    box, mask = results["box_ap50"], results.get("mask_ap50")
    numbers = {"box AP50": f"{box['map']:.3f}"}
    if mask:
        numbers["mask AP50"] = f"{mask['map']:.3f}"
    numbers |= {"images": results["images"], "seconds an image": results["seconds_per_image"]}
    table = html.table(
        ["class", "box AP50", *(["mask AP50"] if mask else [])],
        [
            [name, value, *([mask["per_class"][name]] if mask else [])]
            for name, value in box["per_class"].items()
        ],
    )
    measured = [kind for kind in ("box", "mask") if f"{kind}_coco" in results]
    coco = html.table(
        ["COCO's metric", *measured],
        [
            [name, *(results[f"{kind}_coco"][name] for kind in measured)]
            for name in results["box_coco"]
        ],
    )
    kinds = html.table(["kind", "number"], list(results["error_kinds"].items()))
    sections: list[Html] = [
        html.section("Average precision", html.metrics(numbers), table, coco),
        html.section(
            "Found objects",
            html.figure(
                html.figure_png(shown, workdir / "detections.png"),
                "Each image twice: with its true objects and with those found at a score of .5.",
            ),
        ),
        html.section("Errors by kind, of detections above a score of .5", kinds),
    ]
    log = read_log(workdir)
    if log:
        curves = html.figure_png(loss_curves(log), workdir / "training.png")
        sections.append(html.section("Training", html.figure(curves, "The loss's terms.")))
    config = json.loads((workdir / "config.json").read_text())
    rows = [(name, json.dumps(value)) for name, value in config.items()]
    sections.append(html.section("Configuration", html.table(["option", "value"], rows)))
    title = f"{config['model']} on {config['dataset']}"
    (workdir / "report.html").write_text(html.page(title, "Made by cnn_jax.", *sections))
