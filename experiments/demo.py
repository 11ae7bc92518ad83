"""Trains a residual network on scikit-learn's digits, evaluates its checkpoint and shows it.

The whole story in a minute or two on a laptop: what ./launch.sh demo runs.
"""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from cnn_jax import evaluation, trained
from cnn_jax.data import datasets
from cnn_jax.data.pipeline import evaluation_batches
from cnn_jax.reports import figures, html, looking_inside, parts, real_photographs
from cnn_jax.reports import synthesis as synthesis_report
from cnn_jax.reports import training as training_report
from cnn_jax.runtime.progress import bar, progress_bar
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.recipes import recipe
from cnn_jax.workdir import write_results

from . import app

_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/demo", "Folder of the run and its report.", module_name="Demo"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the TFDS data sets; by default ~/tensorflow_datasets.",
    module_name="Demo",
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of all random numbers of the run.", module_name="Demo"
)
_STEPS = flags.DEFINE_integer(
    "steps", None, "Number of updates; by default the recipe's 30 epochs.", module_name="Demo"
)


def configuration() -> TrainConfig:
    """Return the digits recipe with this command's flags."""
    options = recipe("digits") | {"seed": _SEED.value, "data_dir": _DATA_DIR.value}
    if _STEPS.value is not None:
        options = {**options, "steps": _STEPS.value, "epochs": None}
    return TrainConfig(**options)


def pictures(
    network: trained.Trained, dataset: datasets.Dataset, folder: Path, seed: int
) -> tuple[dict[str, Any], list[html.Html]]:
    """Return numbers, and sections on the data, the mistakes and what the network sees.

    Where a part fails, its section tells why.
    """
    probabilities, labels = evaluation.predict(
        network.model, network.variables, dataset, network.preprocessing
    )
    batches = evaluation_batches(
        dataset, batch_size=len(labels), preprocessing=network.preprocessing
    )
    images = next(batches)["image"]
    predicted = probabilities.argmax(axis=1)

    def picture(images, titles, name: str, caption: str, columns: int = 8) -> html.Html:
        draw = partial(figures.image_grid, images, titles, columns)
        return parts.picture(draw, folder / f"{name}.png", caption)

    def captioned(indices) -> tuple[list[np.ndarray], list[str]]:
        titles = [
            f"{labels[i]} as {predicted[i]}: {probabilities[i, predicted[i]]:.0%}" for i in indices
        ]
        return [images[i] for i in indices], titles

    examples = [int(np.flatnonzero(labels == k)[i]) for i in range(2) for k in range(10)]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]])][:8]
    certainty = np.sort(probabilities, axis=1)
    doubtful = np.argsort(certainty[:, -1] - certainty[:, -2])[:8]
    sections = [
        html.section(
            "The data",
            "Test images of handwritten digits: 8 x 8 scans enlarged to 16 x 16, and their labels.",
            picture(
                [images[i] for i in examples],
                [str(labels[i]) for i in examples],
                "data",
                f"Two of each class, of {len(labels)} test images.",
                columns=10,
            ),
        ),
        html.section(
            "Mistakes and doubts",
            picture(
                *captioned(wrong),
                "mistakes",
                "The surest mistakes: the true digit, what it is read as, and how surely.",
            )
            if len(wrong)
            else "No test image is misread.",
            picture(
                *captioned(doubtful),
                "doubts",
                "The images whose two likeliest classes are closest in probability.",
            ),
        ),
    ]
    numbers = {}

    def inside() -> list[html.Html]:
        made, looked = looking_inside.sections(
            network,
            images.astype(np.float32) / 255,
            labels,
            dataset.class_names,
            folder,
            jax.random.key(seed),
            progress=bar("method"),
        )
        numbers.update(made)
        return looked

    def synthesised() -> list[html.Html]:
        return synthesis_report.sections(
            network,
            images[examples[:4]].astype(np.float32) / 255,
            tuple(dataset.class_names[label] for label in labels[examples[:4]]),
            tuple(dataset.class_names),
            folder,
            seed,
            progress=bar("step"),
        )

    def of_photographs() -> list[html.Html]:
        numbers["photographs"], section = real_photographs.section(
            trained.embedded(), folder, jax.random.key(seed), progress=bar("method")
        )
        return [section]

    sections += parts.attempt("Looking inside", inside)
    sections += parts.attempt("What the network makes of an image", synthesised)
    return numbers, sections + parts.attempt("Photographs", of_photographs)


def main(argv: Sequence[str]) -> None:
    del argv
    start, workdir, config = time.perf_counter(), _WORKDIR.value, configuration()
    try:
        with progress_bar(config.batch_size) as progress:
            result = loop.train(config, workdir, progress)
    except loop.Diverged as error:
        sys.exit(f"error: {error}")
    except loop.EvaluationFailed as error:
        training_report.write_training(workdir, error.result)
        raise
    network = trained.from_workdir(workdir)
    split = datasets.evaluation_split("digits", config.data_dir)
    dataset = trained.labelled(network, datasets.load("digits", split, config.data_dir))
    evaluate = evaluation.create_evaluator(network.model, dataset, network.preprocessing)
    metrics = evaluate(network.variables)
    if jax.process_index() != 0:
        return
    training = {name: value for name, value in result._asdict().items() if name != "evaluation"}
    results = metrics | {"training": training}
    write_results(workdir, results)

    def shown() -> list[html.Html]:
        inside, sections = pictures(network, dataset, Path(workdir), config.seed)
        results["inside"] = inside
        return sections

    sections = parts.attempt("Pictures", shown)
    seconds = time.perf_counter() - start
    write_results(workdir, results | {"seconds": seconds})
    numbers = {
        "test accuracy": f"{1 - metrics['top1_error']:.2%}",
        "test images": metrics["examples"],
        "mistakes": metrics["examples"] - int(np.trace(metrics["confusion"])),
        "steps": result.step,
        "seconds": round(seconds),
    }
    sections = [
        html.section("Result", html.metrics(numbers)),
        *sections,
        *parts.attempt("Training", training_report.training_sections, workdir, training),
        *parts.attempt("Evaluation", training_report.evaluation_sections, workdir, metrics),
    ]
    training_report.write_page(workdir, sections)
    print(
        f"test accuracy {1 - metrics['top1_error']:.2%} on {metrics['examples']} images "
        f"after {result.step} steps, {seconds:.0f} seconds in all"
    )


if __name__ == "__main__":
    app.run(main)
