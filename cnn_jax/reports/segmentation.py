"""The results and the report page of a segmentation run."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_jax import trained
from cnn_jax.data.datasets import Dataset
from cnn_jax.reports import figures, html, mask_figures, parts
from cnn_jax.reports import training as training_report
from cnn_jax.reports.html import Html
from cnn_jax.tasks import segmentation
from cnn_jax.test_time_augmentation import VIEWS
from cnn_jax.trained import Trained
from cnn_jax.training import loop
from cnn_jax.training.objective import normalize_images
from cnn_jax.training.task import SEGMENTATION
from cnn_jax.workdir import write_results


def predictions(
    network: Trained, dataset: Dataset, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield every example's image uint8 [h, w, c], its mask and the predicted one [h, w]."""
    views = VIEWS[network.config.eval_views]

    @jax.jit
    def predict(variables, images):
        images = normalize_images(images, network.mean, network.std)
        return views(partial(network.model.apply, variables))(images).argmax(axis=-1)

    for batch in SEGMENTATION.evaluation_batches(
        dataset, batch_size=batch_size, preprocessing=network.preprocessing
    ):
        predicted = np.asarray(predict(network.variables, batch["image"]))
        real = batch["weight"] > 0
        yield from zip(batch["image"][real], batch["mask"][real], predicted[real], strict=True)


def write(workdir: str, result: loop.Result, pictures: int) -> None:
    """Write results.json, the pictures and report.html of a run, and print its figures."""
    results: dict[str, Any] = result._asdict()
    write_results(workdir, results)
    sections = parts.attempt("Training", training_report.training_sections, workdir, results)
    if result.evaluation is not None:
        metrics = result.evaluation
        print(f"{metrics['examples']} examples: {SEGMENTATION.headline(metrics)}")
        if _of_one_class(metrics):
            print(_of_one_class(metrics))
        sections += parts.attempt("Evaluation", _evaluation_sections, workdir, metrics)
        sections += parts.attempt("Masks", _mask_sections, workdir, results, pictures)
    training_report.write_page(workdir, sections)


def _mask_sections(workdir: str, results: dict[str, Any], pictures: int) -> list[Html]:
    """Predict the evaluation split's masks; results.json gets the kinds of errors too."""
    network = trained.from_workdir(workdir, task="segmentation")
    _, dataset = loop.load_datasets(network.config, SEGMENTATION, network.class_names)
    errors, shown = Counter(), []
    for image, true, predicted in predictions(network, dataset, network.config.batch_size):
        errors.update(segmentation.error_kinds(predicted, true))
        if len(shown) < pictures:
            shown.append((image, true, predicted))
    pixels = results["evaluation"]["pixels"]
    shares = {kind: count / pixels for kind, count in errors.items()}
    size = network.preprocessing.image_size
    write_results(workdir, results | {"errors": shares, "image_size": size})
    print("wrong pixels:", ", ".join(f"{kind} {share:.2%}" for kind, share in shares.items()))
    names = results["evaluation"]["class_names"]
    return [
        html.section(
            "Masks",
            parts.picture(
                lambda: mask_figures.masks_over_images(*zip(*shown, strict=True), names),
                Path(workdir) / "masks.png",
                "Images of the evaluation split, their true masks and the predicted ones.",
            ),
        ),
        html.section(
            "Errors by kind",
            "Wrong pixels as a share of all: beside a true edge, and of the others those of an "
            "object called ground (missed), of the ground called an object (invented), and of an "
            "object given another's class (confused).",
            html.table(
                ["kind", "share of all pixels"],
                [(kind, f"{share:.3%}") for kind, share in shares.items()],
            ),
        ),
    ]


def _of_one_class(metrics: dict[str, Any]) -> str:
    """What to know of an evaluation on one class alone; "" of any other."""
    rows = zip(metrics["class_names"], metrics["confusion"], strict=True)
    there = [name for name, row in rows if sum(row)]
    if len(there) > 1:
        return ""
    return (
        f"The masks of the evaluation split hold {there[0]!r} alone: its mean IoU tells nothing of "
        "the other classes."
    )


def _evaluation_sections(workdir: str, metrics: dict[str, Any]) -> list[Html]:
    folder, names = Path(workdir), metrics["class_names"]
    numbers = {
        "mean IoU": metrics["mean_iou"],
        "pixel accuracy": metrics["pixel_accuracy"],
        "mean accuracy": metrics["mean_accuracy"],
        "images": metrics["examples"],
    }
    share = np.asarray(metrics["confusion"], float)
    percent = np.rint(100 * share / np.maximum(share.sum(axis=1, keepdims=True), 1)).astype(int)
    iou = metrics["per_class_iou"]
    return [
        html.section("Evaluation", html.metrics(numbers), *filter(None, [_of_one_class(metrics)])),
        html.section(
            "Classes",
            html.figures(
                parts.picture(
                    partial(figures.accuracy_by_class, iou, label="intersection over union"),
                    folder / "iou_by_class.png",
                    "Intersection over union of each class.",
                ),
                parts.picture(
                    partial(figures.confusion_matrix, percent, names),
                    folder / "confusion.png",
                    "Percent of a true class's pixels (row) that are given each class (column).",
                ),
            ),
        ),
    ]
