"""The ending of every run: results.json, then report.html, which says how to repeat the run."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from cnn_jax.data import sample_photographs
from cnn_jax.programs.plan import version
from cnn_jax.reports import html, parts
from cnn_jax.reports.html import Html
from cnn_jax.trained import Trained
from cnn_jax.workdir import write_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = Callable[["Figure", str, str], Html]


def picture_in(folder: Path) -> Picture:
    """Return picture(figure, name, caption) -> Html, which also keeps NAME.png in the folder."""

    def picture(figure: "Figure", name: str, caption: str) -> Html:
        return html.figure(html.figure_png(figure, folder / f"{name}.png"), caption)

    return picture


def finish(
    folder: str | os.PathLike,
    title: str,
    sections: Sequence[Html],
    results: Mapping[str, Any] | None = None,
    introduction: str = "Made by cnn_jax.",
    network: Trained | None = None,
) -> None:
    """Write results.json and then report.html, and say where they lie.

    The page ends with the configuration, the command, the versions and the device, and links to
    the run's other pages. A page that cannot be written is told in a line: the results stay.

    Args:
      folder: of the run, which holds config.json.
      results: None where results.json is written already.
      network: which the page is about, if about one: results and page say where it comes from.
    """
    folder = Path(folder)
    if network is not None:
        # a run that was moved stays the same run
        source = {key: value for key, value in network.source.items() if key != "workdir"}
        results = {"source": source, **(results or {})}
        introduction = f"{network.model.name}, parameters {source['parameters_sha256'][:12]}."
    if results is not None:
        write_results(folder, results)
    try:
        ending = [
            *_attribution(folder),
            _configuration(folder),
            _provenance(),
            *_other_pages(folder),
        ]
        page = html.page(title, introduction, *sections, *ending)
        (folder / "report.html").write_text(page)
    except Exception as error:  # whatever it is, the results are written
        parts.tell(f"writing {folder}/report.html", error)
    print(f"results: {folder}/results.json  report: {folder}/report.html")


def command() -> str | None:
    """Return the command line that this process was started by; None where it is no command."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or "experiments" not in spec.name.split("."):
        return None
    launcher = "./launch.sh" if spec.name.startswith("experiments.") else "cnn-jax"
    return shlex.join([launcher, spec.name.rpartition(".")[2], *sys.argv[1:]])


def _attribution(folder: Path) -> list[Html]:
    """Return who made the sample photographs that the page shows, if it shows some."""
    names = json.loads((folder / "config.json").read_text()).get("sample_photographs")
    if not names:
        return []
    rows = [
        (each.file, each.author, each.license, each.source) for each in sample_photographs.EVERY
    ]
    return [html.section("Photographs", html.table(["file", "by", "licence", "source"], rows))]


def _configuration(folder: Path) -> Html:
    config = json.loads((folder / "config.json").read_text())
    rows = [(name, json.dumps(value)) for name, value in config.items()]
    return html.section("Configuration", html.table(["option", "value"], rows))


def _provenance() -> Html:
    device = jax.devices()[0]
    rows = [
        ("command", command()),
        *((name, version(name)) for name in ("cnn_jax", "jax", "flax")),
        ("Python", platform.python_version()),
        ("devices", f"{jax.device_count()} x {device.device_kind} ({platform.machine()})"),
    ]
    return html.section("How it was made", html.table(["", ""], rows))


def _other_pages(folder: Path) -> list[Html]:
    """Return links to the pages of the run that this one belongs to, and of what was made of it."""
    found = [*([folder.parent] if (folder.parent / "config.json").exists() else []), folder]
    pages = {
        os.path.relpath(page, folder): page.parent.name
        for place in found
        for page in sorted([place / "report.html", *place.glob("*/report.html")])
        if page.exists() and page.parent != folder
    }
    return [html.section("Other pages of this run", html.links(pages))] if pages else []
