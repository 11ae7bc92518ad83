"""Trains a residual network on scikit-learn's digits, evaluates its checkpoint and shows it.

The whole story in a minute or two on a laptop: what ./launch.sh demo runs.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from cnn_jax import evaluation, figures, report, taps, trained
from cnn_jax.data import datasets
from cnn_jax.data.pipeline import evaluation_batches
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.recipes import recipe
from cnn_jax.training.step import normalize_images
from cnn_jax.workdir import write_results
from experiments import _run_report, app
from experiments._progress import progress_bar

_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/demo", "Folder of the run and its report.", module_name="Demo"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Where TFDS data sets lie; by default ~/tensorflow_datasets.",
    module_name="Demo",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the run.", module_name="Demo")
_STEPS = flags.DEFINE_integer(
    "steps", None, "Updates to make; by default the recipe's 30 epochs.", module_name="Demo"
)


def configuration() -> TrainConfig:
    """Return the digits recipe with this command's flags."""
    options = recipe("digits") | {"seed": _SEED.value, "data_dir": _DATA_DIR.value}
    if _STEPS.value is not None:
        options = {**options, "steps": _STEPS.value, "epochs": None}
    return TrainConfig(**options)


def pictures(
    network: trained.Trained, dataset: datasets.Dataset, folder: Path
) -> list[report.Html]:
    """Return sections that look at the data, the mistakes, the filters and one image's way."""
    probabilities, labels = evaluation.predict(
        network.model, network.variables, dataset, network.preprocessing
    )
    batches = evaluation_batches(
        dataset, batch_size=len(labels), preprocessing=network.preprocessing
    )
    images = next(batches)["image"]
    predicted = probabilities.argmax(axis=1)

    def picture(figure, name: str, caption: str) -> report.Html:
        return report.figure(report.figure_png(figure, folder / f"{name}.png"), caption)

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
        report.section(
            "The data",
            "Test images of handwritten digits: 8 x 8 scans enlarged to 16 x 16, and their labels.",
            picture(
                figures.image_grid(
                    [images[i] for i in examples], [str(labels[i]) for i in examples], columns=10
                ),
                "data",
                f"Two of each class, of {len(labels)} test images.",
            ),
        ),
        report.section(
            "Mistakes and doubts",
            picture(
                figures.image_grid(*captioned(wrong)),
                "mistakes",
                "The surest mistakes: the true digit, what it is read as, and how surely.",
            )
            if len(wrong)
            else "No test image is misread.",
            picture(
                figures.image_grid(*captioned(doubtful)),
                "doubts",
                "The images whose two likeliest classes are closest in probability.",
            ),
        ),
    ]
    return [*sections, inside(network, images[examples[3]], folder, picture)]


def inside(network: trained.Trained, image: np.ndarray, folder: Path, picture) -> report.Html:
    """Return the section of the first filters and of one image's activations by layer."""
    layers = ("stem", "stage1_block3", "stage2_block3", "stage3_block3")
    inputs = normalize_images(jnp.asarray(image)[None], network.mean, network.std)
    _, activations = taps.activations(network.model.apply, network.variables, inputs, layers)
    kernel = network.variables["params"]["stem"]["kernel"]
    return report.section(
        "Inside",
        "The first layer's filters, and what one image becomes on its way through the network.",
        report.figures(
            picture(figures.image_grid([image], size=1.6), "input", "The image."),
            picture(figures.filter_grid(kernel), "filters", "The 16 filters of the first layer."),
        ),
        *(
            picture(
                figures.channel_grid(np.asarray(activations[layer][0]), columns=16),
                f"activation_{layer}",
                f"The channels of {layer}, {'x'.join(map(str, activations[layer].shape[1:]))}, "
                "each on its own scale.",
            )
            for layer in layers
        ),
    )


def main(argv: Sequence[str]) -> None:
    del argv
    start, workdir, config = time.perf_counter(), _WORKDIR.value, configuration()
    try:
        with progress_bar(config.batch_size) as progress:
            result = loop.train(config, workdir, progress)
    except loop.Diverged as error:
        sys.exit(f"error: {error}")
    network = trained.from_workdir(workdir)
    split = datasets.evaluation_split("digits", config.data_dir)
    dataset = datasets.load("digits", split, config.data_dir)
    evaluate = evaluation.create_evaluator(network.model, dataset, network.preprocessing)
    metrics = evaluate(network.variables)
    if jax.process_index() != 0:
        return
    training = {name: value for name, value in result._asdict().items() if name != "evaluation"}
    seconds = time.perf_counter() - start
    write_results(workdir, metrics | {"training": training, "seconds": seconds})
    numbers = {
        "test accuracy": f"{1 - metrics['top1_error']:.2%}",
        "test images": metrics["examples"],
        "mistakes": metrics["examples"] - int(np.trace(metrics["confusion"])),
        "steps": result.step,
        "seconds": round(seconds),
    }
    sections = [
        report.section("Result", report.metrics(numbers)),
        *pictures(network, dataset, Path(workdir)),
        *_run_report.training_sections(workdir, training),
        *_run_report.evaluation_sections(workdir, metrics),
    ]
    _run_report.write_page(workdir, sections)
    print(
        f"test accuracy {1 - metrics['top1_error']:.2%} on {metrics['examples']} images "
        f"after {result.step} steps, {seconds:.0f} seconds in all"
    )
    print(f"report: {Path(workdir).resolve()}/report.html")


if __name__ == "__main__":
    app.run(main)
