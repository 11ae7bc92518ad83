"""Disturbs runs of this machine, by kills, full disks and damaged files, and tells how they end.

python -m experiments.faults --workdir=runs/faults
python -m experiments.faults --kills=100 --processes=1,2,4 --workdir=runs/faults

Small networks are trained for each task, once in peace and then with a fault; the same command
again has to end with the same bits. Where it may, it mounts a small file system to fill it.
"""

import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from cnn_jax.data import datasets
from cnn_jax.errors import UsageError, unknown
from cnn_jax.reports import faults as faults_report
from cnn_jax.reports import run_page
from cnn_jax.runtime import faults
from cnn_jax.runtime.faults import Trial

from . import app

_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs/faults",
    "Folder of the runs, results.json and report.html.",
    module_name="Output",
)
_TASKS = flags.DEFINE_list(
    "tasks",
    ["classification", "segmentation"],
    "Tasks whose runs are killed: classification, localization, segmentation, detection.",
    module_name="Faults",
)
_PROCESSES = flags.DEFINE_list(
    "processes", ["1", "2"], "Numbers of processes that runs are made by.", module_name="Faults"
)
_KILLS = flags.DEFINE_integer(
    "kills", 8, "How often a run is killed, in all.", lower_bound=0, module_name="Faults"
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments of the kills.", module_name="Faults")

_USUAL = ("--log_every=1", "--learning_rate=0.01")
_LONG = ("--steps=24", "--checkpoint_every=4")
_SHORT = ("--steps=8", "--checkpoint_every=2")
_SHAPES = (
    *("--dataset=shapes", "--train_split=train[:40]", "--eval_split=test[:8]", "--image_size=32"),
    *("--pictures=1", "--flip", *_SHORT),
)
_COMMANDS = {
    "classification": (
        *("train", "--model=lenet5", "--model_options=filters=(8,), neurons=(64,)"),
        *("--image_size=8", "--batch_size=8", "--ema_decay=0.9", "--flip", *_LONG),
    ),
    "localization": (
        *("localize", "--model=localizer_resnet18", *_SHAPES, "--batch_size=8"),
        *("--model_options=features=4, stage_sizes=(1,)", "--optimizer=sgd"),
        "--norm_batch=2",  # else several processes wait for each other at each norm
    ),
    "segmentation": (
        *("segment", "--model=unet", "--model_options=features=(4, 8)", *_SHAPES, "--batch_size=8"),
    ),
    "detection": (
        *("detect", "--model=maskrcnn_resnet10_fpn", *_SHAPES[:3], "--image_size=64"),
        *("--pictures=1", "--batch_size=4", *_SHORT),
    ),
}


def _draw(folder: Path) -> None:
    """Draw images of two classes."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 0), ("light", 150)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(20):
            pixels = (random.integers(0, 100, (8, 8, 3)) + level).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def main(argv: Sequence[str]) -> None:
    del argv
    for task in _TASKS.value:
        if task not in _COMMANDS:
            raise unknown("task", task, _COMMANDS)
    if not _PROCESSES.value or not all(each.isdecimal() and int(each) for each in _PROCESSES.value):
        raise UsageError(f"--processes={','.join(_PROCESSES.value)} is not numbers; give 1,2,4")
    counts = [int(each) for each in _PROCESSES.value]
    chosen = {"tasks": _TASKS.value, "processes": counts}
    chosen |= {"kills": _KILLS.value, "seed": _SEED.value}
    workdir = app.open_free_workdir(
        os.path.expanduser(_WORKDIR.value), chosen, named=_WORKDIR.present
    )
    shutil.rmtree(workdir / "runs", ignore_errors=True)  # made anew each time
    images, data = workdir / "runs" / "images", workdir / "runs" / "data"
    _draw(images)
    if set(_TASKS.value) != {"classification"}:
        datasets.prepare("shapes", data)
    package = __spec__.name.rpartition(".")[0]

    def trial(task: str, processes: int) -> Trial:
        command, *own = _COMMANDS[task]
        own += [f"--dataset=folder:{images.absolute()}"] if task == "classification" else []
        own += [f"--data_dir={data.absolute()}", *_USUAL]
        place = workdir.absolute() / "runs" / f"{task}_{processes}"
        return Trial(task, (f"{package}.{command}", *own), processes, place)

    @cache
    def in_peace(one: Trial) -> tuple[str, float]:
        want, seconds = faults.in_peace(one)
        took = f"{seconds:.0f} s undisturbed"
        print(f"{one.task}, processes: {one.processes}: {took}", flush=True)
        return want, seconds

    rows = []

    def tell(row: faults.Row) -> None:
        rows.append(row)
        right = "as it should" if row["as_it_should"] else "NOT as it should"
        print(f"{row['fault']}, {row['task']}, processes: {row['processes']}: {right}", flush=True)

    trials = [trial(task, count) for task in _TASKS.value for count in counts]
    if _KILLS.value:
        shares = faults.shares(_KILLS.value, [in_peace(each)[1] for each in trials])
        for number, (each, share) in enumerate(zip(trials, shares, strict=True)):
            for row in faults.killed(each, *in_peace(each), share, _SEED.value + number):
                tell(row)
    image = datasets.load(f"folder:{images}", "train").source.files[0][0]
    for count in counts:
        one = trial("classification", count)
        want, _ = in_peace(one)
        for when in ("while it compiles", "while it saves"):
            tell(faults.terminated(one, want, when))
        tell(faults.paused(one, want))
        tell(faults.stalled(one, want, image, 5))
        tell(faults.jumped(one, want))
        if count > 1:
            tell(faults.stalled(one, want, image, faults.PEER_TIMEOUT + 10))
            tell(faults.stopped(one, want))
            tell(faults.late(one, want, 10))
        for how in ("flipped", "truncated", "missing"):
            tell(faults.damaged(one, want, how))
        tell(faults.full_disk(one, want, 150_000))
        for how in ("missing", "unreadable"):
            tell(faults.without_file(one, want, image, "an image", how))
        tell(faults.skipping(one, image))
    for each in trials:
        if each.task == "classification":
            continue
        [records] = data.rglob("shapes-train.array_record*")
        for how in ("missing", "unreadable"):
            tell(faults.without_file(each, in_peace(each)[0], records, "a file of records", how))
    print(faults_report.summary(rows))
    run_page.finish(
        workdir,
        "Faults",
        faults_report.sections(rows),
        {"rows": rows, "summary": faults_report.summary(rows)},
        "Runs that were killed, stopped and robbed of their files, and how they ended.",
    )


if __name__ == "__main__":
    app.run(main)
