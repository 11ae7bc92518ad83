"""The page of several runs: what differs in them, what came of it, and their curves."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnn_jax import runs
from cnn_jax.reports import html, parts, run_page
from cnn_jax.reports.html import Html
from cnn_jax.runs import Run, Setting, Summary

# How many settings the curves show, the best ones, and how many columns of results a table has.
MOST_CURVES, MOST_COLUMNS = 10, 8
# What is told of a run but ranks none.
_LAST = ("images_per_second", "seconds_per_image", "evaluation.examples", "images")


def write(
    folder: Path, title: str, found: Sequence[Run], others: Mapping[str, Any] | None = None
) -> None:
    """Write runs.csv, results.json, curves.png and report.html, and print the table.

    Args:
      folder: holds config.json.
      others: further results.
    """
    settings = runs.settings(found)
    names = columns(settings, runs.ranked_by(found))
    write_csv(folder / "runs.csv", found, names)
    header, rows = table(settings, names)
    print(as_text(header, rows))
    results = {
        **(others or {}),
        "ranked_by": runs.ranked_by(found),
        "settings": runs.as_json(settings),
    }
    text = (
        "Mean \N{PLUS-MINUS SIGN} sample standard deviation over the finished runs of a setting, "
        "which differ in their seed alone; the best setting first."
    )
    sections = [
        html.section("Settings", html.table(header, rows, text)),
        *parts.attempt("Curves", _curves, folder, settings, runs.ranked_by(found)),
        html.section("Runs", _runs(found, names)),
    ]
    run_page.finish(folder, title, sections, results)


def columns(settings: Sequence[Setting], first: str | None) -> list[str]:
    """Return the names of the results, that which ranks the settings first."""
    names = dict.fromkeys(name for setting in settings for name in setting.results)
    order = {first: 0} | dict.fromkeys(_LAST, 3)
    return sorted(names, key=lambda name: order.get(name, 2 if name.startswith("loss") else 1))


def table(settings: Sequence[Setting], names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows, a setting each."""
    varied = list(settings[0].values)
    names = names[:MOST_COLUMNS]
    rows = [
        [
            f"{number}",
            *(shown(setting.values[name]) for name in varied),
            f"{sum(run.finished for run in setting.runs)} of {len(setting.runs)}",
            *(_mean(setting.results.get(name)) for name in names),
        ]
        for number, setting in enumerate(settings, 1)
    ]
    return ["setting", *varied, "finished runs", *map(_short, names)], rows


def shown(value: Any) -> str:
    """Return the value of an option as it is written in a table or a legend."""
    return value if isinstance(value, str) else json.dumps(value)


def _short(name: str) -> str:
    if name in ("loss", "losses.loss"):
        return "training loss"
    return name.removeprefix("evaluation.").replace("_", " ")


def _mean(summary: Summary | None) -> str | None:
    if summary is None:
        return None
    spread = "" if summary.spread is None else f" \N{PLUS-MINUS SIGN} {summary.spread:.2g}"
    return f"{summary.mean:.4g}{spread}"


def as_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in columns of characters."""
    lines = [list(header), *([str("-" if x is None else x) for x in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{x:<{width}}" for x, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_csv(file: Path, found: Sequence[Run], names: Sequence[str]) -> None:
    """Write a line a run: its name, what differs in its configuration, its results."""
    varied = runs.differing(found)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run", *varied, "step", "finished", *names])
        for run in found:
            options = [shown(run.config.get(name)) for name in varied]
            numbers = [run.results.get(name) for name in names]
            writer.writerow([run.name, *options, run.step, run.finished, *numbers])


def _runs(found: Sequence[Run], names: Sequence[str]) -> Html:
    varied, names = runs.differing(found), names[:MOST_COLUMNS]
    rows = [
        [
            run.name,
            *(shown(run.config.get(name)) for name in varied),
            "finished" if run.finished else f"stopped at step {run.step or _last_step(run)}",
            *(run.results.get(name) for name in names),
        ]
        for run in found
    ]
    header = ["run", *varied, "state", *map(_short, names)]
    return html.table(header, rows, "All of it, and all other results, are in runs.csv.")


def _last_step(run: Run) -> int:
    return run.log[-1]["step"] if run.log else 0


def _curves(folder: Path, settings: Sequence[Setting], by: str | None) -> list[Html]:
    best = [setting for setting in settings if any(run.log for run in setting.runs)][:MOST_CURVES]
    if not best:
        return []
    text = "A setting each colour, the best first; thin lines are runs, the thick one their mean."
    if len(best) == MOST_CURVES:
        text += f" The {MOST_CURVES} best settings are shown."
    return [
        html.section("Curves", parts.picture(lambda: curves(best, by), folder / "curves.png", text))
    ]


def curves(settings: Sequence[Setting], by: str | None) -> Figure:
    """Draw the training loss by step and, where it was logged, the result that ranks the runs."""
    tested = f"eval_{(by or 'evaluation.loss').removeprefix('evaluation.')}"
    lines = [line for setting in settings for run in setting.runs for line in run.log]
    keys = ["loss"] + [tested] * any(tested in line for line in lines)
    figure = Figure(figsize=(5 * len(keys), 3.4 + 0.2 * len(settings)), layout="constrained")
    several = figure.subplots(1, len(keys), squeeze=False)[0]
    for axes, key in zip(several, keys, strict=True):
        for number, setting in enumerate(settings):
            label = f"{number + 1}: {_label(setting)}"
            _draw(axes, [_curve(run, key) for run in setting.runs], number, label)
        axes.set(title=_short(key), xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, labels = several[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=8)
    return figure


def _label(setting: Setting) -> str:
    text = ", ".join(f"{name}={shown(x)}" for name, x in setting.values.items()) or "all runs"
    return text if len(text) <= 80 else f"{text[:79]}\N{HORIZONTAL ELLIPSIS}"


def _curve(run: Run, key: str) -> dict[int, float]:
    return {line["step"]: line[key] for line in run.log if line.get(key) is not None}


def _draw(axes, several: Sequence[Mapping[int, float]], number: int, label: str) -> None:
    """Draw the curves of one setting, and their mean where all have a value."""
    color = f"C{number}"
    several = [curve for curve in several if curve]
    for curve in several if len(several) > 1 else []:
        axes.plot(list(curve), list(curve.values()), color=color, linewidth=0.7, alpha=0.5)
    common = sorted(set.intersection(*map(set, several))) if several else []
    means = [np.mean([curve[step] for curve in several]) for step in common]
    style = "-" if len(common) > 1 else "o"
    axes.plot(common, means, style, color=color, linewidth=1.8, markersize=5, label=label)
