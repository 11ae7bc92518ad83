"""The results and the report page of a localisation run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn_jax import trained
from cnn_jax.reports import html, parts
from cnn_jax.reports import training as training_report
from cnn_jax.reports.figures import BLUE, ORANGE
from cnn_jax.reports.html import Html
from cnn_jax.tasks import localization
from cnn_jax.training import loop
from cnn_jax.training.objective import normalize_images
from cnn_jax.training.task import LOCALIZATION
from cnn_jax.workdir import write_results


def write(workdir: str, result: loop.Result, pictures: int) -> None:
    """Write results.json, the pictures and report.html of a run, and print its figures."""
    results: dict[str, Any] = result._asdict()
    write_results(workdir, results)
    sections = parts.attempt("Training", training_report.training_sections, workdir, results)
    if result.evaluation is not None:
        sections += parts.attempt("Evaluation", _sections, workdir, result.evaluation, pictures)
        print(
            f"{result.evaluation['examples']} examples: {LOCALIZATION.headline(result.evaluation)}"
        )
    training_report.write_page(workdir, sections)


def _sections(workdir: str, metrics: dict[str, Any], pictures: int) -> list[Html]:
    errors = [
        (name, f"{metrics[f'top1_{key}']:.2%}", f"{metrics[f'top5_{key}']:.2%}")
        for name, key in (("class", "error"), ("class and box", "localization_error"))
    ]
    kinds = [(f"{kind} wrong", f"{share:.2%}") for kind, share in metrics["error_kinds"].items()]
    return [
        html.section(
            "Evaluation",
            "A guess is a class with its box; it is right where the class is, and where the box "
            "overlaps a true one by half of their union at least.",
            html.table(["error in", "of the first guess", "of the best of five"], errors),
            html.metrics(
                {
                    "mean IoU of the true class's box": metrics["mean_iou"],
                    "images": metrics["examples"],
                }
            ),
        ),
        html.section(
            "Boxes",
            parts.picture(
                partial(_pictures, workdir, pictures),
                Path(workdir) / "boxes.png",
                "True boxes in blue, first guesses in orange with their class.",
            ),
        ),
        html.section("Errors by kind", html.table(["first guess", "share of images"], kinds)),
    ]


def _pictures(workdir: str, count: int) -> Figure:
    """The first images of the evaluation split with their true and guessed boxes."""
    network = trained.from_workdir(workdir, task="localization")
    _, dataset = loop.load_datasets(network.config, LOCALIZATION, network.class_names)
    batches = LOCALIZATION.evaluation_batches(
        dataset, batch_size=count, preprocessing=network.preprocessing
    )
    batch = next(iter(batches))

    @jax.jit
    def guess(variables, images):
        images = normalize_images(images, network.mean, network.std)
        return localization.guesses(network.model.apply(variables, images), 1)

    labels, boxes = map(np.asarray, guess(network.variables, batch["image"]))
    real = batch["weight"] > 0
    return draw(
        batch["image"][real],
        batch["label"][real],
        batch["boxes"][real],
        labels[real, 0],
        boxes[real, 0],
        dataset.class_names,
    )


def draw(
    images: np.ndarray,
    true_labels: np.ndarray,
    true_boxes: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    names: Sequence[str],
    columns: int = 8,
) -> Figure:
    """Images with boxes given in shares of their sides."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).reshape(-1):
        axes.set_axis_off()
    for axes, image, true_label, own, label, box in zip(
        figure.axes, images, true_labels, true_boxes, labels, boxes, strict=False
    ):
        grey = image.shape[-1] == 1
        axes.imshow(image[..., 0] if grey else image, cmap="gray", interpolation="nearest")
        sides = np.tile(image.shape[1::-1], 2)
        for corners, colour in [*((each, BLUE) for each in own if each.any()), (box, ORANGE)]:
            x1, y1, x2, y2 = corners * sides - 0.5
            axes.add_patch(
                Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=1.5)
            )
        right = label == true_label
        title = names[label] if right else f"{names[label]}, not {names[true_label]}"
        axes.set_title(title, fontsize=7, pad=3, color="black" if right else "firebrick")
    return figure
