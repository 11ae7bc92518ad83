"""The pictures and the page of a detector: boxes and masks over images, AP by class, errors."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn_jax import trained
from cnn_jax.detection_evaluation import first_examples, headline, shown_precision
from cnn_jax.reports import html, parts
from cnn_jax.reports.html import Html
from cnn_jax.reports.training import write_page
from cnn_jax.training import checkpoint, detector, goodput, loop
from cnn_jax.training.checkpoint import checkpoint_directory
from cnn_jax.training.log import read_log
from cnn_jax.training.task import DETECTION
from cnn_jax.workdir import write_results

# By class, from Okabe & Ito's palette and lighter turns of it: told apart by the colour-blind too.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")

LEAST_SCORE = 0.5  # of the detections that are drawn
DRAWN = "found at a score of .5; where no image has one, each image's surest."


def drawn(scores: Sequence[Float[np.ndarray, "_"]]) -> list[Bool[np.ndarray, "_"]]:
    """Return which of each image's detections are drawn: the sure ones.

    Of a detector that is sure of none, as after a short training, they are the surest of each.
    """
    sure = [each >= LEAST_SCORE for each in scores]
    if any(each.any() for each in sure):
        return sure
    return [np.arange(len(each)) == np.argmax(each) if len(each) else each > 0 for each in scores]


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

    Args:
      examples: each holds image, and of "truth" and "found" boxes, labels and masks (or None), and
        the scores of what was found, see `drawn`.
    """
    columns = 4
    rows = max(-(-2 * len(examples) // columns), 1)
    figure = Figure(figsize=(columns * 2.3, rows * 2.5), layout="constrained")
    cells = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
    for axes in cells:
        axes.set_axis_off()
    chosen = drawn([example["found"]["scores"] for example in examples])
    for i, example in enumerate(examples):
        for j, side in enumerate(("truth", "found")):
            own = example[side]
            if side == "found":
                own = {key: None if x is None else x[chosen[i]] for key, x in own.items()}
            labels = own["labels"]
            titles = [class_names[label] for label in labels]
            if side == "found":
                scores = own["scores"]
                titles = [f"{t} {s:.2f}" for t, s in zip(titles, scores, strict=True)]
            colours = [COLOURS[(label - 1) % len(COLOURS)] for label in labels]
            axes = cells[2 * i + j]
            draw_objects(example["image"], own["boxes"], titles, colours, axes, own["masks"])
            axes.set_title(side, fontsize=7, pad=8)
    return figure


def loss_curves(log: Sequence[Mapping[str, float]]) -> Figure:
    """The total loss and each of its terms against the step."""
    log = [line for line in log if "loss" in line]  # the others are evaluations'
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


def write(workdir: str, result: loop.Result, pictures: int) -> None:
    """Write results.json, the pictures and report.html of a run, and print its figures.

    Args:
      pictures: how many images of the evaluation split are drawn.
    """
    config = checkpoint.newest_config(checkpoint_directory(workdir))
    name, split = config["dataset"], config["eval_split"]
    split = split or DETECTION.splits(name, config["data_dir"])[1]
    results = {
        "step": result.step,
        "losses": loop.last_metrics(workdir),
        "images_per_second": result.images_per_second,
        "parameters_sha256": result.parameters_sha256,
        "best": result.best,
        "raw_evaluation": result.raw_evaluation or None,
        "goodput": result.goodput,
        "skipped": result.skipped,
        "model": config["model"],
        "seed": config["seed"],
        "split": split,
    }
    results |= result.evaluation or {}
    write_results(workdir, results)
    sections: list[Html] = []
    if result.evaluation:
        sections += parts.attempt("Average precision", _precision, results)
        sections += parts.attempt("Found objects", _found, workdir, pictures)
        sections += parts.attempt("Errors by kind", _errors, results)
        print(f"{name} {split}: {results['images']} images, {headline(results)}")
    sections += parts.attempt("Training", _training, workdir, results)
    write_page(workdir, sections)


def _found(workdir: str, count: int) -> list[Html]:
    """Pictures of the first images of the evaluation split."""
    network = trained.from_workdir(workdir, task="detection")
    config = network.config
    _, dataset = loop.load_datasets(config, DETECTION, network.class_names)
    settings, classes = detector.settings_of(config), network.model.num_classes
    examples = first_examples(
        detector.create_detector(settings, classes, dataset),
        network.variables,
        dataset,
        batch_size=min(count, config.batch_size),
        canvas=config.image_size,
        count=count,
    )
    return [
        html.section(
            "Found objects",
            parts.picture(
                partial(pictures, examples, network.class_names),
                Path(workdir) / "detections.png",
                f"Each image twice: with its true objects and with those {DRAWN}",
            ),
        )
    ]


def _precision(results: Mapping[str, Any]) -> list[Html]:
    box, mask = results["box_ap50"], results.get("mask_ap50")
    numbers = {"box AP50": shown_precision(box["map"])}
    if mask:
        numbers["mask AP50"] = shown_precision(mask["map"])
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
    return [html.section("Average precision", html.metrics(numbers), table, coco)]


def _errors(results: Mapping[str, Any]) -> list[Html]:
    kinds = html.table(["kind", "number"], list(results["error_kinds"].items()))
    return [html.section("Errors by kind, of detections above a score of .5", kinds)]


def _training(workdir: str, results: Mapping[str, Any]) -> list[Html]:
    log = read_log(workdir)
    if not log:
        return []
    file = Path(workdir) / "training.png"
    curves = parts.picture(partial(loss_curves, log), file, "The loss's terms.")
    found = results.get("goodput")
    numbers = html.metrics({"goodput": goodput.line(found)} if found else {})
    return [html.section("Training", numbers, curves)]
