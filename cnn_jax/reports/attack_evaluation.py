"""What experiments.evaluate tells of a network under attack, on paper and on its page.

A result is that of attacks.robustness.accuracy_under_attacks.
"""

import os
from pathlib import Path
from typing import Any

from cnn_jax.reports import html
from cnn_jax.reports.adversarial import accuracy_curve
from cnn_jax.reports.html import Html


def lines(result: dict[str, Any]) -> list[str]:
    """Return what is printed: a line an attack, and one for all where there are several."""
    return [
        f"{name}, {result['norm']} eps {result['eps']:.4g}: accuracy "
        f"{result['clean_accuracy']:.2%} -> {each['robust_accuracy']:.2%} "
        f"on {result['examples']} examples"
        for name, each in _rows(result).items()
    ]


def _rows(result: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of each attack, and of all together where there are several."""
    attacks = result["attacks"]
    return attacks if len(attacks) == 1 else attacks | {"all of these": result}


def section(folder: str | os.PathLike, result: dict[str, Any]) -> Html:
    """Return the section of the html, and leave attack.png in the folder."""
    attacks = result["attacks"]
    curves = {name: each["curve"] for name, each in attacks.items()}
    figure = accuracy_curve(curves, result["norm"])
    png = html.figure_png(figure, Path(folder) / "attack.png")
    numbers = {
        "examples": result["examples"],
        "accuracy": f"{result['clean_accuracy']:.2%}",
        f"{result['norm']} {result['eps']:.4g}": f"{result['robust_accuracy']:.2%}",
    }
    parts = [
        html.metrics(numbers),
        *map(html.paragraph, result["doubts"]),
        html.figure(png, "Accuracy against the budget; an image once fooled stays so."),
    ]
    if len(attacks) > 1:
        eps = [f"{each:.4g}" for each in result["curve"]["eps"]]
        shares = (
            [name, *(f"{share:.1%}" for share in each["curve"]["accuracy"])]
            for name, each in _rows(result).items()
        )
        caption = (
            "Accuracy for each budget; the last row counts the images that resist every attack."
        )
        parts.append(html.table(["attack", *eps], shares, caption))
    return html.section(f"Under attack by {', '.join(attacks)}", *parts)
