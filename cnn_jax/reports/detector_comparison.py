"""The page of a comparison of detectors: one table, and their boxes on the same images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.reports import html
from cnn_jax.reports.detection import COLOURS, draw_objects
from cnn_jax.tasks.average_precision import Found

LEAST_SCORE = 0.5  # of the boxes that are drawn


def pictures(
    examples: Sequence[Mapping[str, np.ndarray]],
    found: Mapping[str, Sequence[Found]],
    class_names: Sequence[str],
) -> Figure:
    """A row an image: its objects, and each detector's boxes."""
    figure = Figure(figsize=(2.3 * (1 + len(found)), 2.5 * len(examples)), layout="constrained")
    cells = figure.subplots(len(examples), 1 + len(found), squeeze=False)
    for row, (example, axes) in enumerate(zip(examples, cells, strict=True)):
        seen = example["valid"]
        labels = example["labels"][seen]
        columns = [("truth", example["boxes"][seen], labels, [class_names[i] for i in labels])]
        for title, detections in found.items():
            boxes, scores, labels = detections[row]
            sure = scores >= LEAST_SCORE
            texts = [
                f"{class_names[label]} {score:.2f}"
                for label, score in zip(labels[sure], scores[sure], strict=True)
            ]
            columns.append((title, boxes[sure], labels[sure], texts))
        for axis, (title, boxes, labels, texts) in zip(axes, columns, strict=True):
            colours = [COLOURS[(label - 1) % len(COLOURS)] for label in labels]
            draw_objects(example["image"], boxes, texts, colours, axis)
            axis.set_title(title, fontsize=8, pad=8)
    return figure


def write(
    workdir: Path,
    results: Mapping[str, Any],
    examples: Sequence[Mapping[str, np.ndarray]],
    found: Mapping[str, Sequence[Found]],
    class_names: Sequence[str],
) -> None:
    """Write the pictures and report.html of what results.json holds."""
    detectors, search = results["detectors"], results["proposals"]
    table = html.table(
        ["detector", "network", "AP50", "s an image", "s with proposals"],
        [
            [
                title,
                own["model"],
                own["ap50"],
                own["seconds_per_image"],
                own["seconds_per_image_with_proposals"],
            ]
            for title, own in detectors.items()
        ],
    )
    classes = html.table(
        ["class", *detectors],
        [
            [name, *(own["ap50_per_class"][name] for own in detectors.values())]
            for name in class_names[1:]
        ],
    )
    numbers = {
        "proposals an image": search["proposals_per_image"],
        "of objects, overlapped by half": f"{search['recall_at_50']:.1%}",
        "seconds an image": search["seconds_per_image"],
    }
    png = html.figure_png(pictures(examples, found, class_names), workdir / "boxes.png")
    sections = [
        html.section(
            "Precision and time",
            f"On {search['images']} images of {results['split']}. R-CNN runs its network on every "
            "proposal, Fast R-CNN once an image, and Faster R-CNN proposes by itself.",
            table,
        ),
        html.section(
            "The same images",
            html.figure(png, "The true objects, and what each detector is sure of by half."),
        ),
        html.section("Selective search", html.metrics(numbers)),
        html.section("AP50 by class", classes),
    ]
    page = html.page("R-CNN, Fast R-CNN, Faster R-CNN", "Made by cnn_jax.", *sections)
    (workdir / "report.html").write_text(page)
