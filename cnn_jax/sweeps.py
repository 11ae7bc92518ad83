"""Grids of runs: their settings, and running them, several at a time, each in its own process.

points = grid({"learning_rate": ["0.05", "0.1"], "seed": ["0", "1"]})
run_all([Job(name(point), command(point), log) for point in points], slots(jobs=2), say)
"""

import hashlib
import itertools
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cnn_jax.errors import UsageError


class Job(NamedTuple):
    """One run: its name, its command line and the file that what it says is appended to."""

    name: str
    command: list[str]
    log: Path


class Slot(NamedTuple):
    """A share of the machine for one run: variables of the environment, and cores (empty: all)."""

    environment: dict[str, str]
    cores: tuple[int, ...]


def axis(text: str, commas: bool = True, ranges: bool = False) -> list[str]:
    """Return the values of a flag, each once: those between semicolons, and commas where allowed.

    Args:
      commas: whether a comma divides values, as where no value holds one.
      ranges: whether a..b are the integers from a to b, both included.

    Raises:
      UsageError: a range that is empty.
    """
    values = re.split("[;,]", text) if commas else text.split(";")
    found: list[str] = []
    for value in values:
        bounds = re.fullmatch(r"\s*(-?\d+)\.\.(-?\d+)\s*", value) if ranges else None
        if bounds is None:
            found.append(value.strip())
            continue
        first, last = map(int, bounds.groups())
        if first > last:
            raise UsageError(f"the range {value} is empty; write {last}..{first}")
        found += map(str, range(first, last + 1))
    return list(dict.fromkeys(found))


def grid(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return every combination of the flags' values; the last flag changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def folder_name(point: Mapping[str, str]) -> str:
    """Return "learning_rate=0.1,seed=0": the name of a run's folder, fit for any file system.

    Where characters had to give way, some digits of a hash keep the names apart.
    """
    exact = ",".join(f"{name}={value}" for name, value in point.items()) or "run"
    short = re.sub(r"[^\w.,=+-]+", "_", exact)[:120]
    return short if short == exact else f"{short},{hashlib.sha256(exact.encode()).hexdigest()[:6]}"


def slots(jobs: int | None = None) -> list[Slot]:
    """Return the machine's shares: one GPU each, or so many jobs with their share of the cores.

    Args:
      jobs: how many run at a time; by default one a GPU, without GPUs one.

    Raises:
      UsageError: more jobs than GPUs, or than cores.
    """
    devices = _gpus()
    if devices:
        if jobs is not None and jobs > len(devices):
            raise UsageError(f"--jobs={jobs} is more than the {len(devices)} GPUs; give fewer")
        return [Slot({"CUDA_VISIBLE_DEVICES": each}, ()) for each in devices[:jobs]]
    count = jobs or 1
    if not hasattr(os, "sched_getaffinity"):
        return [Slot({}, ())] * count
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise UsageError(f"--jobs={count} is more than the {len(cores)} cores; give fewer")
    return [Slot({}, tuple(cores[i::count])) for i in range(count)]


def _gpus() -> list[str]:
    """Return the GPUs that JAX would find, without a use of JAX, which would occupy them."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [each for each in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if each.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def run_all(jobs: Sequence[Job], shares: Sequence[Slot], say: Callable[[str], None]) -> list[str]:
    """Run the jobs, as many at a time as there are shares, and return the names of those that fail.

    A job that fails is told, and the others go on. SIGTERM and Ctrl-C are handed on to the running
    jobs as SIGTERM, upon which a training saves itself; no further one is begun.

    Raises:
      KeyboardInterrupt: the jobs were stopped so.
    """
    free: queue.Queue[Slot] = queue.Queue()
    for share in shares:
        free.put(share)
    running: set[subprocess.Popen] = set()
    stopped, lock = threading.Event(), threading.Lock()

    def work(job: Job) -> str | None:
        share = free.get()
        try:
            with job.log.open("a") as log:
                with lock:  # none begins after the others were stopped
                    if stopped.is_set():
                        return None
                    process = _start(job, share, log)
                    running.add(process)
                say(f"{job.name}: begun")
                status = process.wait()
                with lock:
                    running.discard(process)
        finally:
            free.put(share)
        if stopped.is_set():
            return None
        if status == 0:
            say(f"{job.name}: done")
            return None
        say(f"{job.name}: failed with status {status}: {_last_line(job.log)} (all in {job.log})")
        return job.name

    def stop() -> None:
        with lock:
            stopped.set()
            for process in running:
                process.terminate()

    with _stopping(stop), ThreadPoolExecutor(len(shares)) as pool:
        failed = list(pool.map(work, jobs))
    if stopped.is_set():
        raise KeyboardInterrupt
    return [name for name in failed if name is not None]


def _start(job: Job, share: Slot, log: Any) -> subprocess.Popen:
    # a session of its own: Ctrl-C in the terminal reaches it as the SIGTERM above
    process = subprocess.Popen(
        job.command,
        env=os.environ | share.environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    if share.cores:  # before it begins its threads
        os.sched_setaffinity(process.pid, share.cores)
    return process


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call stop() at SIGINT and SIGTERM."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    # in a thread of its own, as the lock that it takes may be held by the interrupted one
    before = [
        signal.signal(each, lambda *_: threading.Thread(target=stop).start()) for each in numbers
    ]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _last_line(file: Path) -> str:
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")


def run_by_submitit(
    jobs: Sequence[Job],
    folder: Path,
    options: Mapping[str, Any],
    say: Callable[[str], None],
    cluster: str = "slurm",
) -> list[str]:
    """Run each job as one of SLURM's and return the names of those that fail.

    Args:
      folder: of submitit's own files.
      options: of submitit's AutoExecutor.update_parameters, such as timeout_min, gpus_per_node and
        slurm_partition.
      cluster: slurm; submitit's local and debug run on this machine.

    Raises:
      UsageError: submitit is not installed, SLURM is not there, or an option is unknown.
    """
    try:
        import submitit  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError("--engine=slurm needs submitit: pip install 'cnn_jax[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**options)
        with executor.batch():  # one array of SLURM's
            submitted = [executor.submit(run_here, job.command, str(job.log)) for job in jobs]
    except (RuntimeError, ValueError, TypeError, NameError, OSError) as error:
        raise UsageError(f"--engine={cluster} cannot run: {error}") from error
    failed = []
    try:
        for job, task in zip(jobs, submitted, strict=True):
            try:
                status = task.result()
            except Exception as error:  # of the engine: out of time, a node that is gone, ...
                status = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            if status == 0:
                say(f"{job.name}: done")
            else:
                failed.append(job.name)
                say(f"{job.name}: failed with status {status} (all in {job.log})")
    except KeyboardInterrupt:
        for task in submitted:
            task.cancel()
        raise
    return failed


def run_here(command: Sequence[str], log: str) -> int:
    """Run a command, append what it says to a file, and return its status."""
    with open(log, "a") as stream:
        return subprocess.run(command, stdout=stream, stderr=stream).returncode


def command_of(module: str, flags: Mapping[str, str]) -> list[str]:
    """Return the command line that runs a module of commands with these flags."""
    return [sys.executable, "-P", "-m", module, *(f"--{name}={x}" for name, x in flags.items())]
