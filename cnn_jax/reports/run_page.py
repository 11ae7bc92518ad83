"""Writing the results and the page of an experiment that looks into a network."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cnn_jax.reports import html
from cnn_jax.reports.html import Html
from cnn_jax.trained import Trained
from cnn_jax.workdir import write_results

Picture = Callable[[Figure, str, str], Html]


def picture_in(folder: Path) -> Picture:
    """Return picture(figure, name, caption) -> Html, which also keeps NAME.png in the folder."""

    def picture(figure: Figure, name: str, caption: str) -> Html:
        return html.figure(html.figure_png(figure, folder / f"{name}.png"), caption)

    return picture


def write(
    folder: Path, network: Trained, title: str, results: Mapping[str, Any], sections: Sequence[Html]
) -> None:
    """Write results.json, with the network's source, and report.html, and say where they are."""
    source = {key: value for key, value in network.source.items() if key != "workdir"}
    write_results(folder, {**results, "source": source})
    config = json.loads((folder / "config.json").read_text())
    rows = [(name, json.dumps(value)) for name, value in config.items()]
    configuration = html.section("Configuration", html.table(["option", "value"], rows))
    introduction = f"{network.model.name}, parameters {source['parameters_sha256'][:12]}."
    page = html.page(title, introduction, *sections, configuration)
    (folder / "report.html").write_text(page)
    print(f"results: {folder}/results.json  report: {folder}/report.html")
