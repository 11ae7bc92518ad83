"""The page of a comparison of detectors: one table, and their boxes on the same images."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.detection_evaluation import shown_precision
from cnn_jax.reports import html, parts, run_page
from cnn_jax.reports.detection import COLOURS, DRAWN, draw_objects, drawn
from cnn_jax.reports.html import Html
from cnn_jax.tasks.average_precision import Found


def pictures(
    examples: Sequence[Mapping[str, np.ndarray]],
    found: Mapping[str, Sequence[Found]],
    class_names: Sequence[str],
) -> Figure:
    """A row an image: its objects, and each detector's boxes."""
    figure = Figure(figsize=(2.3 * (1 + len(found)), 2.5 * len(examples)), layout="constrained")
    cells = figure.subplots(len(examples), 1 + len(found), squeeze=False)
    shown = slice(len(examples))
    chosen = {title: drawn([each.scores for each in own[shown]]) for title, own in found.items()}
    for row, (example, axes) in enumerate(zip(examples, cells, strict=True)):
        seen = example["valid"]
        labels = example["labels"][seen]
        columns = [("truth", example["boxes"][seen], labels, [class_names[i] for i in labels])]
        for title, detections in found.items():
            boxes, scores, labels = detections[row]
            sure = chosen[title][row]
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


def headline(own: Mapping[str, Any]) -> str:
    """Return one detector's precision and time in one line."""
    whole = own["seconds_per_image_with_proposals"]
    return f"AP50 {shown_precision(own['ap50'])}, {own['seconds_per_image']:.4f} s an image" + (
        "" if whole is None else f", {whole:.4f} s with proposals"
    )


def write(
    workdir: Path,
    results: Mapping[str, Any],
    examples: Sequence[Mapping[str, np.ndarray]],
    found: Mapping[str, Sequence[Found]],
    class_names: Sequence[str],
) -> None:
    """Write the pictures and report.html of what results.json holds, as far as it could be made."""
    measured = {title: own for title, own in results["detectors"].items() if "ap50" in own}
    sections = parts.attempt("Precision and time", _precision, results, measured)
    if examples and found:
        picture = parts.picture(
            partial(pictures, examples, found, class_names),
            workdir / "boxes.png",
            f"The true objects, and those that each detector {DRAWN}",
        )
        sections.append(html.section("The same images", picture))
    if "proposals" in results:
        sections += parts.attempt("Selective search", _search, results["proposals"])
    sections += parts.attempt("AP50 by class", _classes, measured, class_names)
    run_page.finish(workdir, "R-CNN, Fast R-CNN, Faster R-CNN", sections)


def _precision(results: Mapping[str, Any], measured: Mapping[str, Any]) -> list[Html]:
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
            for title, own in measured.items()
        ],
    )
    text = (
        f"On {results['images']} images of {results['split']}. R-CNN runs its network on every "
        "proposal, Fast R-CNN once an image, and Faster R-CNN proposes by itself."
    )
    return [html.section("Precision and time", text, table)]


def _search(search: Mapping[str, Any]) -> list[Html]:
    recall = search["recall_at_50"]
    numbers = {
        "proposals an image": search["proposals_per_image"],
        "of objects, overlapped by half": None if recall is None else f"{recall:.1%}",
        "seconds an image": search["seconds_per_image"],
    }
    return [html.section("Selective search", html.metrics(numbers))]


def _classes(measured: Mapping[str, Any], class_names: Sequence[str]) -> list[Html]:
    table = html.table(
        ["class", *measured],
        [
            [name, *(own["ap50_per_class"][name] for own in measured.values())]
            for name in class_names[1:]
        ],
    )
    return [html.section("AP50 by class", table)]
