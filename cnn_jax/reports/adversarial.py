"""The pictures and the page of experiments.adversarial."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cnn_jax.attacks.robustness import Verdict
from cnn_jax.reports import figures, html, run_page
from cnn_jax.reports.figures import BLUE, ORANGE

_ROWS = 6


def before_and_after(
    images: Float[np.ndarray, "n h w c"],
    adversarial: Float[np.ndarray, "n h w c"],
    before: Sequence[str],
    after: Sequence[str],
) -> Figure:
    """A row an image: the image, its perturbation, ten times that, and the adversarial image.

    Perturbations are drawn around mid-grey.
    """
    size = 1.7
    figure = Figure(figsize=(4.3 * size, len(images) * (size + 0.25)), layout="constrained")
    axes = figure.subplots(len(images), 4, squeeze=False)
    for row, image, changed, first, last in zip(
        axes, images, adversarial, before, after, strict=True
    ):
        delta = changed - image
        for box, picture in zip(row, (image, 0.5 + delta, 0.5 + 10 * delta, changed), strict=True):
            picture = np.clip(picture, 0, 1)
            grey = picture.shape[-1] == 1
            box.imshow(
                picture[..., 0] if grey else picture,
                cmap="gray" if grey else None,
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            box.set_axis_off()
        row[0].set_title(first, fontsize=9)
        row[1].set_title("perturbation", fontsize=9)
        row[2].set_title("10 x perturbation", fontsize=9)
        row[3].set_title(last, fontsize=9, color=ORANGE if first != last else BLUE)
    return figure


def pairs(told: Sequence[Mapping[str, Any]], adversarial: Float[np.ndarray, "n h w c"]) -> Figure:
    """A row an image and a column a target: the adversarial image and what it is taken for.

    Args:
      told: of each adversarial image its example, target, after and after_probability.
    """
    rows = list(dict.fromkeys(each["example"] for each in told))[:_ROWS]
    columns = list(dict.fromkeys(each["target"] for each in told))
    table = [[np.full(adversarial.shape[1:], 0.5) for _ in columns] for _ in rows]
    captions = [["" for _ in columns] for _ in rows]  # a pair that was left out stays grey
    for each, image in zip(told, adversarial, strict=True):
        if each["example"] in rows:
            i, j = rows.index(each["example"]), columns.index(each["target"])
            table[i][j] = np.clip(image, 0, 1)
            captions[i][j] = f"{each['after']} ({each['after_probability']:.1%})"
    return figures.labelled_grid(table, columns, captions, size=1.7)


def accuracy_curve(curves: Mapping[str, Mapping[str, Sequence[float]]], norm: str) -> Figure:
    """Accuracy against the budget, a line a curve {"eps": ..., "accuracy": ...}."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve["eps"], curve["accuracy"], "o-", label=name, markersize=4)
    axes.set(xlabel=f"budget in {norm}, pixels in 0..1", ylabel="accuracy", ylim=(-0.03, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(6))  # more numbers as small as 2 / 255 would touch
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


def write(
    folder: Path,
    model: str,
    images: Float[np.ndarray, "n h w c"],
    adversarial: Float[np.ndarray, "n h w c"],
    verdict: Verdict,
    labels: Int[np.ndarray, " n"],
    results: Mapping[str, Any],
) -> None:
    """Write results.json, adversarial.png, curve.png where there is one, and report.html."""
    # first those that were read rightly and are fooled, as they show what there is to see
    interest = (verdict.before == labels).astype(int) + verdict.fooled
    shown = np.sort(np.argsort(-interest, kind="stable")[:_ROWS])
    told = [results["images"][i] for i in shown]
    before = [f"{each['before']} ({each['before_probability']:.1%})" for each in told]
    after = [f"{each['after']} ({each['after_probability']:.1%})" for each in told]
    picture = before_and_after(images[shown], adversarial[shown], before, after)
    budget = f", eps {results['eps']:.4g}" if "eps" in results else ""
    aim = f", towards {results['target']}" if "target" in results else ""
    attack = f"{results['attack']} in {results['norm']}{budget}{aim}"
    sections = [
        html.section(
            "Result",
            html.metrics(
                {
                    "images": results["examples"],
                    "accuracy": f"{results['clean_accuracy']:.1%}",
                    "accuracy under attack": f"{results['robust_accuracy']:.1%}",
                    "fooled": f"{results['success']:.1%}",
                }
            ),
            *map(html.paragraph, results["doubts"]),
            f"Images that were misread before, left as they are: {results['misread_before']}.",
            html.table(["norm", "median size of the perturbation"], results["median_size"].items()),
        ),
        html.section(
            "Images",
            "From the left: the image and the class the network sees in it, the perturbation, ten "
            "times the perturbation, both around mid-grey, and the sum and its class.",
            html.figure(html.figure_png(picture, folder / "adversarial.png"), attack),
        ),
    ]
    if "target" in results and len({each["target"] for each in results["images"]}) > 1:
        grid = html.figure_png(pairs(results["images"], adversarial), folder / "pairs.png")
        sections.append(html.section("Targets", html.figure(grid, "A column a target.")))
    if "curve" in results:
        figure = accuracy_curve({results["attack"]: results["curve"]}, results["norm"])
        png = html.figure_png(figure, folder / "curve.png")
        sections.append(html.section("Budget", html.figure(png, "Accuracy against the budget.")))
    introduction = f"Made by cnn_jax: {attack}."
    run_page.finish(folder, f"{model} under attack", sections, results, introduction)
