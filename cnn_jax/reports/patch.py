"""The pictures and the page of experiments.patch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from cnn_jax.data import photographs
from cnn_jax.reports import figures, html, run_page
from cnn_jax.trained import Trained

_SHOWN = 8
_INCHES, _DOTS = 10 / 2.54, 300  # of the print


def to_print(patch: Float[np.ndarray, "s s c"]) -> Image.Image:
    """Return the patch's disc at 300 dots an inch, 10 cm wide, transparent beside it."""
    side = round(_INCHES * _DOTS)
    image = photographs.to_pillow(patch).convert("RGBA")
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    at = np.arange(side) + 0.5 - side / 2
    inside = np.clip(side / 2 - np.hypot(at[:, None], at) + 0.5, 0, 1)
    image.putalpha(Image.fromarray(photographs.to_bytes(inside)))
    return image


def success_curves(
    areas: Sequence[float], rates: Mapping[str, Mapping[str, Sequence[float]]]
) -> Figure:
    """Share of images that are seen as the target against the share that the patch covers."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for way, style in zip(rates, ("o-", "x--"), strict=True):
        for (name, values), colour in zip(
            rates[way].items(), (figures.BLUE, figures.ORANGE), strict=False
        ):
            axes.plot(areas, values, style, color=colour, label=f"{name}, {way}")
    axes.set(xlabel="share of the image covered", ylabel="success", ylim=(-0.03, 1.03))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", frameon=False, fontsize=7, ncols=2)
    return figure


def write(
    folder: Path,
    results: Mapping[str, Any],
    patch: Float[np.ndarray, "s s c"],
    laid: Float[np.ndarray, "n h w c"],
    captions: Sequence[str],
    network: Trained,
) -> None:
    """Write results.json, patch.png, images.png, success.png and report.html.

    Args:
      laid: the held-out images under the largest patch.
      captions: what the network sees in each without and with it.
    """
    target, areas = results["target"], results["areas"]
    to_print(patch).save(folder / "patch.png", dpi=(_DOTS, _DOTS))
    shown = figures.image_grid(list(laid[:_SHOWN]), list(captions[:_SHOWN]), columns=4, size=1.8)
    curve = success_curves(areas, results["success"])
    rows = [
        [f"{name}, {way}", *(f"{rate:.1%}" for rate in rates)]
        for way, by_name in results["success"].items()
        for name, rates in by_name.items()
    ]
    sections = [
        html.section(
            "Success",
            f"Share of {results['held_out']} held-out images, of those not seen as {target} "
            "anyway, that are seen as it under the patch, by the share of the image it covers. "
            "The same pixels in another order tell what covering and colours alone do.",
            html.table(["patch", *(f"{area:.0%}" for area in areas)], rows),
            html.figures(
                html.figure(
                    html.figure_png(curve, folder / "success.png"),
                    "Success against the share that is covered",
                )
            ),
        ),
        html.section(
            "Patch",
            "patch.png is to be printed, 10 cm wide; it was made under turns and changes of light.",
            html.figures(
                html.figure(
                    html.figure_png(figures.image_grid([patch], size=2.6)),
                    f"The patch by which {network.model.name} sees: {target}",
                ),
                html.figure(
                    html.figure_png(shown, folder / "images.png"),
                    f"Held-out images with it on {areas[-1]:.0%}, and their class before and after",
                ),
            ),
        ),
    ]
    title = f"A patch that is seen as: {target}"
    run_page.finish(folder, title, sections, results, network=network)
