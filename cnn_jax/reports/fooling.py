"""Fooling images of all classes, and how sure the network is of them."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from cnn_jax.reports import figures, html
from cnn_jax.runtime.platform_loop import Progress
from cnn_jax.visualize import fooling
from cnn_jax.visualize.fooling import Fooling

_EVOLVED = {  # what the page says of each mutation
    "pixels": "single pixels, from noise (--mutation=pixels)",
    "squares": "whole rectangles, from grey (--mutation=squares)",
    "waves": "waves laid over parts of it, from grey (--mutation=waves)",
    "mixed": "whole rectangles and waves by lot, from grey (--mutation=mixed)",
}


def images(
    f: fooling.F,
    targets: Sequence[int],
    photograph: Float[np.ndarray, "h w c"],
    key: Array,
    *,
    steps: int = 100,
    learning_rate: float = 0.01,
    generations: int = 2000,
    children: int = 64,
    mutation: str = "pixels",
    progress: Progress | None = None,
) -> dict[str, Fooling]:
    """Return an image a class of each kind: by gradient, by evolution, and from a photograph."""
    batch = (len(targets), *photograph.shape)
    targets = np.asarray(targets)
    descent = {"learning_rate": learning_rate, "steps": steps, "progress": progress}
    noise = jax.random.uniform(jax.random.fold_in(key, 0), batch)
    return {
        "by gradient": fooling.by_gradient(f, targets, noise, **descent),
        "by evolution": fooling.by_evolution(
            f,
            jax.eval_shape(f, noise).shape[-1],
            photograph.shape,
            jax.random.fold_in(key, 1),
            generations=generations,
            children=children,
            mutation=mutation,
            targets=targets,
            progress=progress,
        ),
        "fantasy": fooling.by_gradient(f, targets, np.broadcast_to(photograph, batch), **descent),
    }


def numbers(
    found: Mapping[str, Fooling], real: Float[np.ndarray, " n"] | None
) -> dict[str, Float[np.ndarray, " n"]]:
    """Return the confidences of each way, and of real images in their own class."""
    confidences = {way: np.asarray(each.confidence) for way, each in found.items()}
    return confidences if real is None else confidences | {"real images": real}


def section(
    found: Mapping[str, Fooling],
    names: Sequence[str],
    confidences: Mapping[str, Float[np.ndarray, " n"]],
    folder: Path,
    mutation: str = "pixels",
) -> html.Html:
    """Return the images, a row a way and a column a class, and the confidences' distribution.

    Args:
      mutation: that of the evolution, see `images`.
    """
    grid = figures.labelled_grid(
        [list(np.asarray(each.images)) for each in found.values()],
        [textwrap.fill(name, 14) for name in names],
        [[f"{value:.1%}" for value in np.asarray(each.confidence)] for each in found.values()],
    )
    return html.section(
        "Fooling images",
        "Above: from noise, by gradient. In the middle: by mutation and selection alone, of "
        f"{_EVOLVED[mutation]}. Below: fantasy images, one and the same photograph moved towards "
        "each class. Under each is the probability that the network gives to the class above.",
        html.figure(html.figure_png(grid, folder / "fooling.png"), "A column a class."),
        html.figure(
            html.figure_png(_distribution(confidences), folder / "confidences.png"),
            "The confidences, each a mark; the axis is that of the log odds.",
        ),
    )


def _distribution(confidences: Mapping[str, Float[np.ndarray, " n"]]) -> Figure:
    """Confidences as marks along the log odds, which keep .9 and .999 apart."""
    figure = Figure(figsize=(7, 0.6 + 0.4 * len(confidences)), layout="constrained")
    axes = figure.subplots()
    ticks = np.array([0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999])
    for row, values in enumerate(reversed(list(confidences.values()))):
        clipped = np.clip(values, 1e-3, 1 - 1e-5)
        axes.plot(np.log(clipped / (1 - clipped)), np.full(len(values), row), "|", markersize=12)
    axes.set_yticks(range(len(confidences)), list(reversed(confidences)))
    axes.set_xticks(np.log(ticks / (1 - ticks)), [f"{t:g}" for t in ticks])
    axes.set(ylim=(-0.6, len(confidences) - 0.4), xlabel="confidence")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure
