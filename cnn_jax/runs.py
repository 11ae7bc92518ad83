"""Finished and unfinished runs, read from their folders and compared.

Runs whose configurations differ in the seed alone are repetitions of one setting: their results are
summarised by mean and sample standard deviation.
"""

import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnn_jax.errors import UsageError
from cnn_jax.training.config import TrainConfig, identity
from cnn_jax.training.log import read_log

# What runs are ranked by: the first of these results that they have, and which end is better.
RANKED_BY = {
    "evaluation.top1_localization_error": min,
    "evaluation.top1_error": min,
    "evaluation.mean_iou": max,
    "mask_coco.AP": max,
    "box_coco.AP": max,
    "mask_ap50.map": max,
    "box_ap50.map": max,
    "evaluation.loss": min,
    "loss": min,
    "losses.loss": min,
}
# Results that say nothing of how good a network is, or repeat the configuration.
_ASIDE = ("per_class", "model", "seed", "step", "split", "goodput")


class Run(NamedTuple):
    """A run as its folder holds it.

    name: of the folder, seen from where the runs were looked for.
    config: all options that its outcome depends on, older versions' with today's defaults.
    results: the numbers of results.json by dotted names; {} where there are none yet.
    log: the lines of metrics.jsonl.
    step: at which it stopped, None where no results say so.
    """

    name: str
    config: dict[str, Any]
    results: dict[str, float]
    log: list[dict[str, Any]]
    step: int | None

    @property
    def finished(self) -> bool:
        """Whether its results are those of its last step."""
        return bool(self.results) and self.step == self.config.get("steps", self.step)


class Summary(NamedTuple):
    """The finished repetitions' values of one result: mean, sample standard deviation, number.

    spread: None of a single one.
    """

    mean: float
    spread: float | None
    count: int


class Setting(NamedTuple):
    """Runs that differ in their seed alone.

    values: what tells this setting from the others, option -> value.
    results: name -> Summary over those runs that are finished.
    """

    values: dict[str, Any]
    runs: list[Run]
    results: dict[str, Summary]


def find(folders: Iterable[str | os.PathLike]) -> list[Run]:
    """Return the training runs in and below the folders, each once.

    A folder that is named itself may also hold other results beside its config.json.

    Raises:
      UsageError: a folder that is not there, or no run at all.
    """
    folders = [Path(folder).expanduser() for folder in folders]
    found: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; name folders of runs")
        for place in _below(folder):
            alone = len(folders) == 1 and place != folder
            name = str(place.relative_to(folder)) if alone else str(place)
            found.setdefault(place.resolve(), name)
    if not found:
        raise UsageError(
            f"no runs in {', '.join(map(str, folders))}; a run's folder holds config.json and "
            "metrics.jsonl"
        )
    return [read(place, name) for place, name in found.items()]


def _below(folder: Path) -> Iterator[Path]:
    if (folder / "config.json").exists() and (folder / "results.json").exists():
        known = read(folder).config
        if "command" not in known and "folders" not in known:  # a sweep, a comparison
            yield folder
    for log in sorted(folder.rglob("metrics.jsonl")):
        if (log.parent / "config.json").exists():
            yield log.parent


def read(folder: str | os.PathLike, name: str | None = None) -> Run:
    """Return the run in a folder.

    Raises:
      UsageError: a file of it is not JSON.
    """
    folder = Path(folder)
    config, results = _json(folder / "config.json"), _json(folder / "results.json")
    config.pop("steps_before", None)
    if "model" in config and "dataset" in config and "seed" in config:
        config = json.loads(json.dumps(identity(TrainConfig()))) | config
    if "training" in results:  # an evaluation of the run wrote it last
        results = results["training"] | {
            "evaluation": {key: x for key, x in results.items() if key != "training"}
        }
    return Run(
        folder.name if name is None else name,
        config,
        dict(_numbers(results)),
        read_log(folder),
        results.get("step"),
    )


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{file} is not a table in JSON; mend it or leave its folder out")
    return found


def _numbers(results: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    for name, value in results.items():
        if name.startswith(_ASIDE):
            continue
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield before + name, value


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the options in which the runs' configurations differ, in the order of the files."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    return [
        name
        for name in names
        if len({json.dumps(run.config.get(name), sort_keys=True) for run in runs}) > 1
    ]


def settings(runs: Sequence[Run]) -> list[Setting]:
    """Return the runs, those of one setting together, the best setting first.

    Settings are ranked by the mean of `ranked_by`; those without it come last.
    """
    varied = [name for name in differing(runs) if name != "seed"]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps([run.config.get(name) for name in varied]), []).append(run)
    found = []
    for group in groups.values():
        finished = [run for run in group if run.finished]
        names = dict.fromkeys(name for run in finished for name in run.results)
        found.append(
            Setting(
                {name: group[0].config.get(name) for name in varied},
                group,
                {
                    name: summary([run.results[name] for run in finished if name in run.results])
                    for name in names
                },
            )
        )
    by = ranked_by(runs)
    if by is None:
        return found
    sign = 1 if RANKED_BY[by] is min else -1

    def rank(setting: Setting) -> float:
        return sign * setting.results[by].mean if by in setting.results else math.inf

    return sorted(found, key=rank)


def ranked_by(runs: Sequence[Run]) -> str | None:
    """Return the first result of RANKED_BY that all finished runs have; None if there is none."""
    finished = [run.results for run in runs if run.finished]
    common = set.intersection(*map(set, finished)) if finished else set()
    return next((name for name in RANKED_BY if name in common), None)


def summary(values: Sequence[float]) -> Summary:
    """Return the mean and the sample standard deviation (divisor n - 1) of one value or more."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), spread, len(values))


def as_json(found: Sequence[Setting]) -> list[dict[str, Any]]:
    """Return the settings as results.json holds them."""
    return [
        {
            "values": setting.values,
            "runs": {run.name: {"finished": run.finished, **run.results} for run in setting.runs},
            "results": {name: each._asdict() for name, each in setting.results.items()},
        }
        for setting in found
    ]
