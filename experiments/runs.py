"""Compares runs: what differs in their configurations, their results, and their curves on one page.

python -m experiments.runs runs/sweep
python -m experiments.runs runs/digits runs/r56 --workdir=runs/two

Every training run in and below the folders is taken. Those that differ in their seed alone make one
line of the table, with the mean and the spread of their results. runs.csv holds a line a run.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cnn_jax import runs
from cnn_jax.errors import UsageError
from cnn_jax.reports import runs as runs_report

from . import app

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the comparison, for its results and its page; by default comparison in the first "
    "folder of runs.",
    module_name="Output",
)


def main(argv: Sequence[str]) -> None:
    folders = argv[1:]
    if not folders:
        raise UsageError("no folder of runs is named; write runs FOLDER, as in runs runs/sweep")
    found = runs.find(folders)
    folder = Path(folders[0], "comparison") if _WORKDIR.value is None else Path(_WORKDIR.value)
    config = {"folders": sorted({str(Path(each).expanduser().resolve()) for each in folders})}
    folder = app.open_workdir(folder, config)
    runs_report.write(folder, f"{len(found)} runs", found)


if __name__ == "__main__":
    app.run(main, positional="FOLDER ...")
