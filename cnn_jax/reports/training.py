"""The results and the report page of a run: its training, its evaluation, or both."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cnn_jax.reports import figures, html, parts, run_page
from cnn_jax.reports.html import Html
from cnn_jax.training import goodput
from cnn_jax.training.log import read_log
from cnn_jax.training.loop import Result
from cnn_jax.training.task import CLASSIFICATION, Task
from cnn_jax.workdir import write_results


def read_results(workdir: str) -> dict[str, Any]:
    """Return what `results.json` holds; {} where there is none."""
    file = Path(workdir) / "results.json"
    return json.loads(file.read_text()) if file.exists() else {}


def read_training(workdir: str) -> dict[str, Any]:
    """Return the training's part of `results.json`, whichever experiment wrote it last."""
    results = read_results(workdir)
    if "training" in results:
        return results["training"]
    keys = (
        "step",
        "loss",
        "images_per_second",
        "parameters_sha256",
        "best",
        "raw_evaluation",
        "goodput",
        "skipped",
        "memory",
    )
    return {key: results.get(key) for key in keys} if "images_per_second" in results else {}


def write_training(workdir: str, result: Result, task: Task = CLASSIFICATION) -> None:
    """Write results.json and report.html of a training run."""
    results = {name: value for name, value in result._asdict().items() if name != "evaluation"}
    write_results(workdir, results | {"evaluation": result.evaluation})
    sections = parts.attempt("Training", training_sections, workdir, results)
    if result.evaluation is not None:
        sections += parts.attempt("Evaluation", sections_of(task), workdir, result.evaluation)
    write_page(workdir, sections)


def write_page(workdir: str, sections: list[Html]) -> None:
    """Write report.html under the names of the run's model and data set, see run_page.finish."""
    config = json.loads((Path(workdir) / "config.json").read_text())
    title = " on ".join(str(config[key]) for key in ("model", "dataset") if config.get(key))
    run_page.finish(workdir, title, sections)


def training_sections(workdir: str, results: Mapping[str, Any]) -> list[Html]:
    """Return the section of the training curves; [] for a folder without a log."""
    log = read_log(workdir)
    if not log:
        return []
    numbers = {
        "steps": results["step"],
        "training loss": results["loss"],
        "images a second": results["images_per_second"],
    }
    for name, count in (results.get("skipped") or {}).items():
        numbers[f"images of {name} that were skipped"] = count
    if found := results.get("goodput"):
        numbers["goodput"] = goodput.line(found)
    if found := results.get("memory"):
        numbers["peak memory of a step, GiB"] = found["peak_bytes"] / 2**30
    if best := results.get("best"):
        numbers[f"best {best['metric']}"] = f"{best['value']:.4f} at step {best['step']}"
    for name, value in (results.get("raw_evaluation") or {}).items():
        numbers[f"{name} without averaging"] = value
    return [
        html.section(
            "Training",
            html.metrics(numbers),
            parts.picture(
                partial(figures.training_curves, log),
                Path(workdir) / "training.png",
                "Loss, accuracy and learning rate by step. The training loss holds smoothed "
                "labels, class weights, auxiliary heads and the dice loss where used; the test "
                "loss does not.",
            ),
        )
    ]


def sections_of(task: Task) -> Callable[[str, Mapping[str, Any]], list[Html]]:
    """Return f(workdir, metrics) -> the sections of an evaluation of a task without a report."""
    if task.name == CLASSIFICATION.name:
        return evaluation_sections

    def sections(workdir: str, metrics: Mapping[str, Any]) -> list[Html]:
        del workdir  # no picture
        return [html.section("Evaluation", html.metrics({n: metrics.get(n) for n in task.logged}))]

    return sections


def evaluation_sections(workdir: str, metrics: Mapping[str, Any]) -> list[Html]:
    """Return the section of the errors, the confusion matrix and the accuracy by class."""
    folder = Path(workdir)
    numbers = {
        "examples": metrics["examples"],
        "top-1 error": f"{metrics['top1_error']:.2%}",
        "top-5 error": f"{metrics['top5_error']:.2%}",
        "loss (nats)": metrics["loss"],
    }
    names = metrics["class_names"]
    return [
        html.section(
            "Evaluation",
            html.metrics(numbers),
            html.figures(
                parts.picture(
                    partial(figures.confusion_matrix, metrics["confusion"], names),
                    folder / "confusion.png",
                    "Counts of true (rows) and predicted classes (columns).",
                ),
                parts.picture(
                    partial(figures.accuracy_by_class, metrics["per_class_accuracy"]),
                    folder / "accuracy_by_class.png",
                    "Share of each class's examples that are classified right.",
                ),
            ),
        )
    ]
