"""Trains a network for each combination of settings and compares the runs on one page.

python -m experiments.sweep train --recipe=digits --learning_rate=.05,.1 --seed=0..4 \
    --workdir=runs/sweep
python -m experiments.sweep train --recipe=digits --decay_at='0.5;0.5,0.75' --workdir=runs/decay

First the command (train, segment, localize or detect), then its flags. A flag with several values
is an axis of the grid: values stand between commas, and integers from a to b are written a..b.
Where values hold commas themselves (--decay_at, --mean, --std, --model_options and other texts of
options) semicolons divide them; --layer_rates is taken whole. The same command again skips the runs
that are finished and goes on with the others; more values may be added to an axis.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import flags

from cnn_jax import runs, sweeps
from cnn_jax.errors import UsageError, unknown
from cnn_jax.reports import runs as runs_report
from cnn_jax.training.config import TrainConfig, literal_options

from . import app
from .flags import training as training_flags

_COMMANDS = ("train", "segment", "localize", "detect")
# Flags of texts that hold commas of their own, beside those of lists of numbers.
_TEXTS = {
    *("class_weights", "mask_values", "model_options", "optimizer_options", "freeze"),
    *("train_split", "eval_split", "init_from", "config", "data_dir"),
}
# Flags of texts that hold semicolons too.
_WHOLE = {"layer_rates"}
_JOBS = flags.DEFINE_integer(
    "jobs",
    None,
    "Number of runs at a time on this machine; by default one for each GPU, without GPUs one.",
    lower_bound=1,
    module_name="Sweep",
)
_ENGINE = flags.DEFINE_enum(
    "engine",
    "machine",
    ("machine", "slurm"),
    "Where the runs are made: on this machine, or as jobs of SLURM, which needs cnn_jax's extra "
    "named slurm.",
    module_name="Sweep",
)
_SLURM_OPTIONS = flags.DEFINE_string(
    "slurm_options",
    "",
    "Parameters of submitit's executor, as in \"timeout_min=600, gpus_per_node=1, "
    "slurm_partition='gpu'\".",
    module_name="Sweep",
)
_OWN = ("jobs", "engine", "slurm_options", "workdir", "verbosity")

# The grid of the command line: flag -> its values, where `read_grid` finds them.
_axes: dict[str, list[str]] = {}


def read_grid(argv: Sequence[str]) -> list[str]:
    """Take the training command's flags out of argv and keep their values in the grid.

    The command's module defines its flags, so that every value is checked by its own flag.
    """
    program, *arguments = argv
    command = next((each for each in arguments if not each.startswith("-")), None)
    if command is None and any(each.startswith(("--help", "-help", "-h", "-?")) for each in argv):
        return list(argv)
    if command is None:
        raise UsageError(f"no command is named; write sweep train (or {', '.join(_COMMANDS[1:])})")
    if command not in _COMMANDS:
        raise unknown("training command", command, _COMMANDS)
    importlib.import_module(f"{__spec__.name.rpartition('.')[0]}.{command}")
    kept, rest = [], iter(arguments)
    for each in rest:
        name, equals, text = each.lstrip("-").partition("=")
        if not each.startswith("-") or name in _OWN or name not in _known():
            kept.append(each)
            continue
        flag = flags.FLAGS[name.removeprefix("no") if name not in flags.FLAGS else name]
        if not equals:
            text = str(name == flag.name).lower() if flag.boolean else next(rest, "")
        if flag.name in _axes:
            raise UsageError(f"--{flag.name} is given twice; write --{flag.name}=A,B")
        scalar = flag.flag_type() in ("int", "float", "bool", "string enum", "string")
        commas, ranges = scalar and flag.name not in _TEXTS, flag.flag_type() == "int"
        values = [text] if flag.name in _WHOLE else sweeps.axis(text, commas, ranges)
        _axes[flag.name] = list(dict.fromkeys(_written(flag, value) for value in values))
    return [program, *kept]


def _known() -> set[str]:
    """Return the names of the command's flags, those that turn one off included."""
    names = set(flags.FLAGS) - {"plugin"}
    return names | {f"no{name}" for name in names if flags.FLAGS[name].boolean}


def _written(flag: flags.Flag, text: str) -> str:
    """Return a value as it is always written: .05 and 0.050 are one run."""
    try:
        value = flag.parser.parse(text)
    except ValueError as error:
        raise UsageError(f"--{flag.name}={text}: {error}") from None
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check(points: Sequence[dict[str, str]]) -> None:
    """Raise UsageError where a run's options do not go together, before any is begun."""
    plugins = [f"--plugin={name}" for name in flags.FLAGS.plugin]
    for point in points:
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["sweep", *plugins, *(f"--{name}={text}" for name, text in point.items())])
        training_flags.config_from_flags(flags.FLAGS)


def main(argv: Sequence[str]) -> None:
    if len(argv) != 2:
        raise UsageError(f"unexpected {argv[2]!r}; flags are written --name=value")
    command = argv[1]
    if not flags.FLAGS["workdir"].present:
        raise UsageError("--workdir is missing; name a folder, as in --workdir=runs/sweep")
    workdir, engine, plugins = flags.FLAGS.workdir, _ENGINE.value, flags.FLAGS.plugin
    options, shares = literal_options(_SLURM_OPTIONS.value, "slurm_options"), []
    if engine == "machine":
        shares = sweeps.slots(_JOBS.value)
    points = sweeps.grid(_axes)
    check(points)
    varied = [name for name, values in _axes.items() if len(values) > 1]
    fixed = {name: values[0] for name, values in _axes.items() if len(values) == 1}
    result = {field.name: field.metadata["result"] for field in dataclasses.fields(TrainConfig)}
    config = {
        "command": command,
        **({"steps": int(fixed["steps"])} if "steps" in fixed else {}),
        "flags": {
            name: text for name, text in fixed.items() if result.get(name, True) and name != "steps"
        },
    }
    workdir = app.open_workdir(workdir, config, growing="steps").absolute()
    say = partial(print, file=sys.stderr, flush=True)
    jobs, folders = [], []
    module = f"{__spec__.name.rpartition('.')[0]}.{command}"
    for point in points:
        name = sweeps.folder_name({axis: point[axis] for axis in varied})
        folder = workdir / name
        folders.append(folder)
        if _finished(folder, point):
            say(f"{name}: finished before")
            continue
        line = sweeps.command_of(module, point | {"workdir": str(folder)})
        line += [f"--plugin={each}" for each in plugins]
        jobs.append(sweeps.Job(name, line, workdir / f"{name}.log"))
    if engine == "slurm":
        failed = sweeps.run_by_submitit(jobs, workdir / "slurm", options, say) if jobs else []
    else:
        failed = sweeps.run_all(jobs, shares, say)
    made = [runs.read(folder) for folder in folders if (folder / "config.json").exists()]
    if made:
        title = f"{len(made)} runs of {command}"
        runs_report.write(workdir, title, made, {"failed": failed})
    if failed:
        sys.exit(f"error: {len(failed)} of {len(points)} runs failed: {' '.join(failed)}")


def _finished(folder: Path, point: dict[str, str]) -> bool:
    """Return whether the run has made all the steps that it is asked for, and its page."""
    run = runs.read(folder)
    steps = int(point["steps"]) if "steps" in point else run.config.get("steps")
    return bool(run.results) and run.step == steps and (folder / "report.html").exists()


if __name__ == "__main__":
    app.run(main, positional="COMMAND", prepare=read_grid)
