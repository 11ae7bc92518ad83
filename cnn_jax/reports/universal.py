"""The pictures and the page of experiments.universal_perturbation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cnn_jax.reports import figures, html, run_page

_SHOWN = 8


def rate_curve(counts: Sequence[int], rates: Sequence[float]) -> Figure:
    """Fooling rate on held-out images against the number of images it was made of."""
    figure = Figure(figsize=(4.5, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(counts, rates, "o-", color=figures.BLUE)
    axes.set(xlabel="images it was made of", ylabel="fooled", xscale="log", ylim=(-0.03, 1.03))
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure


def write(
    folder: Path,
    results: Mapping[str, Any],
    perturbation: Float[np.ndarray, "h w c"],
    images: Float[np.ndarray, "n h w c"],
    changed: Float[np.ndarray, "n h w c"],
    before: Sequence[str],
    after: Sequence[str],
) -> None:
    """Write results.json, perturbation.png, images.png, curve.png and report.html."""
    largest = max(float(np.abs(perturbation).max()), 1e-12)
    alone = figures.image_grid([0.5 + perturbation / largest / 2], size=2.2)
    titles = [f"{old} → {new}" for old, new in zip(before, after, strict=True)]
    shown = figures.image_grid(list(changed[:_SHOWN]), titles[:_SHOWN], columns=4, size=1.5)
    curve = rate_curve(results["made_of"], results["fooling_rate"])
    sections = [
        html.section(
            "Result",
            html.metrics(
                {
                    "fooled": f"{results['fooling_rate'][-1]:.1%}",
                    "accuracy": f"{results['clean_accuracy']:.1%}",
                    "accuracy with it": f"{results['accuracy']:.1%}",
                    "held-out images": results["held_out"],
                }
            ),
            *map(html.paragraph, results["doubts"]),
        ),
        html.section(
            "Perturbation",
            "The same for every image; grey is nothing, black and white are its largest values.",
            html.figures(
                html.figure(
                    html.figure_png(alone, folder / "perturbation.png"),
                    f"Largest value {largest:.4g}",
                ),
                html.figure(
                    html.figure_png(shown, folder / "images.png"),
                    "Held-out images with it, and their class before and after",
                ),
            ),
        ),
        html.section(
            "Images it takes",
            html.figure(
                html.figure_png(curve, folder / "curve.png"), "Share of held-out images fooled"
            ),
        ),
    ]
    if len(results["networks"]) > 1:
        rows = [
            [name, *map(float, row)]
            for name, row in zip(results["networks"], results["transfer"], strict=True)
        ]
        header = ["made for", *results["networks"]]
        table = html.table(header, rows, "Share of held-out images fooled, by network")
        sections.append(html.section("Transfer", table))
    attack = f"by {results['method']}, {results['norm']} eps {results['eps']:.4g}"
    title = f"A universal perturbation for {results['networks'][0]}"
    run_page.finish(folder, title, sections, results, f"Made by cnn_jax {attack}.")
