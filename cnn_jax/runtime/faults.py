"""Runs that lose their processes, their disk or their files, and whether they end as undisturbed.

A trial is a training command. It is run once in peace; then again and again with a fault, after
which the same command has to end with the same bits, or to say in a line why it cannot.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn_jax.runtime import false_clock
from cnn_jax.training.checkpoint import checkpoint_directory, steps

Row = dict[str, Any]
PEER_TIMEOUT = 10
_LIMIT = 600.0  # seconds after which a process hangs
_DAY = 24 * 3600


class Trial(NamedTuple):
    """A training command.

    task: what it trains for.  command: the words of the command without its workdir.
    processes: how many work together, on this machine.  folder: of its runs.
    """

    task: str
    command: tuple[str, ...]
    processes: int
    folder: Path


def start(
    trial: Trial, workdir: Path, limit: int | None = None, late: float = 0.0
) -> list[subprocess.Popen]:
    """Start the command's processes, which write what they say beside the workdir.

    Args:
      limit: bytes of the largest file that they may write.
      late: seconds by which the last one starts later than the others.
    """

    together = []
    if trial.processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        together = [
            f"--coordinator_address=localhost:{port}",
            f"--num_processes={trial.processes}",
            f"--peer_timeout={PEER_TIMEOUT}",
        ]
    workdir.parent.mkdir(parents=True, exist_ok=True)
    started = []
    for number in range(trial.processes):
        time.sleep(late if number == trial.processes - 1 else 0)
        identity = [*together, f"--process_id={number}"] if together else []
        with _log(workdir, number).open("wb") as log:
            words = [*trial.command, f"--workdir={workdir}", *identity]
            command = [sys.executable, "-P", "-m", *words]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        if limit is not None:  # before it has begun to write
            resource.prlimit(started[-1].pid, resource.RLIMIT_FSIZE, (limit, limit))
    return started


def _log(workdir: Path, number: int) -> Path:
    return workdir.with_name(f"{workdir.name}.{number}.log")


def _line(workdir: Path, words: str) -> str:
    """Return the first line of process 0 with these words, "" where there is none."""
    text = _log(workdir, 0).read_text(errors="replace").replace("\r", "\n")
    return next((line.strip() for line in text.splitlines() if words in line), "")


def said(workdir: Path, number: int = 0) -> str:
    """Return the last error that a process told, else its last line."""
    text = _log(workdir, number).read_text(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror: " in line or " failed: " in line]
    last = (errors or lines or [""])[-1]
    return last[max(0, last.find("error: ")) :]  # a bar of progress may stand before it


def ended(processes: Sequence[subprocess.Popen], limit: float = _LIMIT) -> list[int | None]:
    """Wait until all have ended; return their statuses, None of those that had to be killed."""
    deadline, found = time.monotonic() + limit, []
    for process in processes:
        try:
            found.append(process.wait(max(0.1, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            found.append(None)
    return found


def bits(workdir: Path) -> str | None:
    """Return the hash of the parameters that a run ended with."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((workdir / "results.json").read_text()).get("parameters_sha256")
    return None


def in_peace(trial: Trial) -> tuple[str, float]:
    """Return the hash that the undisturbed command ends with, and its seconds.

    Raises:
      RuntimeError: it fails.
    """
    workdir, began = trial.folder / "undisturbed", time.monotonic()
    statuses = ended(start(trial, workdir))
    if None in statuses:
        raise RuntimeError(f"{' '.join(trial.command)} takes more than {_LIMIT:.0f} s undisturbed")
    found = bits(workdir)
    if any(statuses) or found is None:
        raise RuntimeError(f"{' '.join(trial.command)} fails undisturbed: {said(workdir)}")
    return found, time.monotonic() - began


def _row(trial: Trial, fault: str, workdir: Path, told: str, want: str, right: bool = True) -> Row:
    """Run the command again, in peace, and return what became of it.

    Args:
      right: whether all until here was as it should be.
    """
    statuses = ended(start(trial, workdir))
    same = bits(workdir) == want
    return {
        "fault": fault,
        "task": trial.task,
        "processes": trial.processes,
        "told": told.replace(str(trial.folder), "RUNS"),
        "same_bits": same,
        "as_it_should": right and same and not any(statuses),
    }


def shares(kills: int, seconds: Sequence[float]) -> list[int]:
    """Return how often each trial is killed, of so many times in all.

    Each as often as another at first, up to twice; of what is left the quick ones get more, so that
    all take about as long.

    Args:
      seconds: that each trial takes in peace.
    """
    given = [0] * len(seconds)
    for _ in range(kills):
        costs = seconds if min(given) >= 2 else [1] * len(given)
        given[np.argmin(np.multiply(given, costs))] += 1
    return given


def killed(trial: Trial, want: str, seconds: float, kills: int, seed: int) -> Iterator[Row]:
    """Kill a random process at a random moment, so many times; a row each time the run ends.

    Where training has not begun, the others may still wait for one that starts late: they are
    killed too, as the one who started them would do.

    Args:
      want, seconds: of the run in peace.
    """
    draw, number, left = random.Random(seed), 0, kills
    while left > 0:
        number += 1
        workdir, own, told, right = trial.folder / f"killed_{number}", 0, "", True
        for _ in range(min(left, draw.randint(1, 3))):
            before, began = _identity(_log_of(workdir)), time.monotonic()
            processes = start(trial, workdir)
            deadline = began + draw.uniform(0.1, 1.0) * seconds
            while time.monotonic() < deadline and _any_runs(processes):
                time.sleep(0.02)
            alive = [i for i, process in enumerate(processes) if process.poll() is None]
            if not alive:  # it was through before
                right = right and not any(process.returncode for process in processes)
                if own == 0:  # a run takes less by now, as its programs were compiled
                    seconds = min(seconds, time.monotonic() - began)
                break
            victim = draw.choice(alive)
            processes[victim].kill()
            own += 1
            if _identity(_log_of(workdir)) == before:
                for process in processes:
                    process.kill()
            # all others end by themselves
            elif None in ended(processes, PEER_TIMEOUT + 30):
                right = False
            elif len(processes) > 1:
                told = said(workdir, (victim + 1) % len(processes))
            ended(processes)
        if own == 0 and right:
            continue
        left -= max(own, 1)
        row = _row(trial, f"killed {own} times", workdir, told, want, right)
        yield row | {"kills": own}


def _log_of(workdir: Path) -> Path:
    """What is written anew each time that training begins."""
    return workdir / "metrics.jsonl"


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from the one that was there before."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def stopped(trial: Trial, want: str) -> Row:
    """A process that stands still: the others end and name it."""
    workdir = trial.folder / "stopped"
    processes = start(trial, workdir)
    _wait_for(_log_of(workdir).exists, processes)
    processes[-1].send_signal(signal.SIGSTOP)
    statuses = ended(processes[:-1], PEER_TIMEOUT + 60)
    processes[-1].kill()
    processes[-1].wait()
    told = said(workdir)
    right = None not in statuses and f"process {trial.processes - 1} of" in told
    return _row(trial, "a process stands still", workdir, told, want, right)


def late(trial: Trial, want: str, seconds: float) -> Row:
    """A process that starts so many seconds after the others, which wait for it."""
    workdir = trial.folder / "late"
    statuses = ended(start(trial, workdir, late=seconds))
    told = said(workdir) if any(statuses) else ""
    fault = f"a process starts {seconds:g} s late"
    return _row(trial, fault, workdir, told, want, not any(statuses))


def paused(trial: Trial, want: str) -> Row:
    """All stands still for a while, as when a machine is suspended."""
    workdir = trial.folder / "paused"
    processes = start(trial, workdir)
    _wait_for(_log_of(workdir).exists, processes)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    right = not any(ended(processes))
    return _row(trial, "stands still for 3 s and goes on", workdir, "", want, right)


def stalled(trial: Trial, want: str, image: Path, seconds: float) -> Row:
    """The disk of the data does not answer for so many seconds.

    The image becomes a named pipe, which gives what it holds after that time. One process waits for
    it; of several the others end where it takes longer than they wait for a peer, and name it.
    """
    workdir, content = trial.folder / f"stalled_{seconds:g}", image.read_bytes()
    pipe, whole = trial.folder / "pipe", trial.folder / "image"
    whole.write_bytes(content)
    os.mkfifo(pipe)
    processes = start(trial, workdir)
    try:  # not at the first update, for which all wait longer
        _wait_for(lambda: _log_of(workdir).exists() and _size(_log_of(workdir)) > 0, processes)
        pipe.replace(image)
        answers = None
        while answers is None and _any_runs(processes):
            with contextlib.suppress(OSError):  # nobody reads yet
                answers = os.open(image, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.005)
        whole.replace(image)  # who reads it later finds it as it was
        if answers is not None:
            until = time.monotonic() + seconds
            _wait_for(lambda: time.monotonic() > until, processes)
            with contextlib.suppress(BrokenPipeError):  # who read is gone
                os.write(answers, content)
            os.close(answers)
        statuses = ended(processes)
    finally:
        image.write_bytes(content)
    told = said(workdir) if any(statuses) else ""
    gives_up = trial.processes > 1 and seconds > PEER_TIMEOUT
    right = "by its input" in told if gives_up else not any(statuses)
    fault = f"the data's disk does not answer for {seconds:g} s"
    return _row(trial, fault, workdir, told, want, right and answers is not None)


def jumped(trial: Trial, want: str) -> Row:
    """The wall clock jumps a day ahead when training begins, and two days back when it has saved.

    It is the clock that the command's own process reads, see false_clock.
    """
    workdir, clock = trial.folder / "jumped", trial.folder / "clock"
    clock.write_text("0")
    command = (false_clock.__name__, os.fspath(clock), *trial.command)
    processes = start(trial._replace(command=command), workdir)
    _wait_for(_log_of(workdir).exists, processes)
    _write_at_once(clock, f"{_DAY}")
    _wait_for(lambda: bool(steps(checkpoint_directory(workdir))), processes)
    _write_at_once(clock, f"{-_DAY}")
    statuses = ended(processes)
    told = said(workdir) if any(statuses) else ""
    return _row(trial, "the clock jumps ahead and back", workdir, told, want, not any(statuses))


def _write_at_once(path: Path, text: str) -> None:
    whole = path.with_name(f"{path.name}.new")
    whole.write_text(text)
    whole.replace(path)


def terminated(trial: Trial, want: str, when: str) -> Row:
    """SIGTERM to the last process, "while it compiles" or "while it saves"."""
    workdir = trial.folder / when.replace(" ", "_")
    processes = start(trial, workdir)
    folder = checkpoint_directory(workdir)
    begun = {
        "while it compiles": _log_of(workdir).exists,
        "while it saves": lambda: folder.exists() and any(folder.iterdir()),
    }
    _wait_for(begun[when], processes)
    if when == "while it compiles":
        time.sleep(0.3)  # from its log to its first update
    processes[-1].terminate()
    statuses = ended(processes)
    told = _line(workdir, "told to stop")
    right = not any(statuses) and bool(told)  # and did not end before
    return _row(trial, f"SIGTERM {when}", workdir, told, want, right)


def full_disk(trial: Trial, want: str, size: int) -> Row:
    """No room while a checkpoint is written: on a small file system if it may be mounted.

    Args:
      size: bytes that there are, fewer than a run takes.
    """
    workdir = trial.folder / "full_disk" / "run"
    workdir.parent.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(workdir.parent)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        statuses = ended(start(trial, workdir, None if mounted else size // 8))
        told = said(workdir, trial.processes - 1)  # the first has no room for its words either
        if mounted:
            subprocess.run(
                ["mount", "-o", f"remount,size={64 * size}", str(workdir.parent)], check=True
            )
        how = "a full disk" if mounted else "files that may not grow"
        return _row(trial, f"{how} while it saves", workdir, told, want, all(statuses))
    finally:
        if mounted:
            subprocess.run(["umount", str(workdir.parent)], check=True)


def damaged(trial: Trial, want: str, how: str) -> Row:
    """The newest checkpoint of a finished run, its largest file flipped, truncated or missing."""
    workdir = trial.folder / how
    shutil.copytree(trial.folder / "undisturbed", workdir)
    (workdir / "results.json").unlink()
    folder = checkpoint_directory(workdir)
    newest = folder / str(steps(folder)[-1])
    file = max((each for each in newest.rglob("*") if each.is_file()), key=_size)
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    row = _row(trial, f"a checkpoint with a {how} file", workdir, "", want)
    told = _line(workdir, "is damaged")
    row["told"] = told.replace(str(trial.folder), "RUNS")
    return row | {"as_it_should": row["as_it_should"] and bool(told)}


def without_file(trial: Trial, want: str, file: Path, what: str, how: str) -> Row:
    """A file of the data that is "missing" or "unreadable" until the command is run again.

    Args:
      what: it is, as "an image".
    """
    workdir, content = trial.folder / f"{what} {how}".replace(" ", "_"), file.read_bytes()
    try:
        if how == "missing":
            # one that goes missing while the run goes on: its name was read
            processes = start(trial, workdir)
            _wait_for(lambda: checkpoint_directory(workdir).exists(), processes)
            file.unlink()
        else:
            file.write_bytes(content[: len(content) // 2])
            processes = start(trial, workdir)
        statuses = ended(processes)
        told = said(workdir) if any(statuses) else ""
    finally:
        file.write_bytes(content)
    # it may have been read, or opened, before
    right = not any(statuses) or file.name in told
    return _row(trial, f"{what} that is {how}", workdir, told, want, right)


def skipping(trial: Trial, image: Path) -> Row:
    """An image that cannot be decoded, under --bad_images=skip.

    Of several processes the first tells what it skipped itself, and another may have met it.
    """
    workdir, content = trial.folder / "skipping", image.read_bytes()
    passing = trial._replace(command=(*trial.command, "--bad_images=skip"))
    try:
        image.write_bytes(content[: len(content) // 2])
        statuses = ended(start(passing, workdir))
    finally:
        image.write_bytes(content)
    results = json.loads((workdir / "results.json").read_text()) if not any(statuses) else {}
    count = sum((results.get("skipped") or {}).values())
    return {
        "fault": "an image that is unreadable, with --bad_images=skip",
        "task": trial.task,
        "processes": trial.processes,
        "told": f"{count} skipped",
        "same_bits": None,
        "as_it_should": count == 1 or (count == 0 and trial.processes > 1 and not any(statuses)),
    }


def _size(path: Path) -> int:
    return path.stat().st_size


def _wait_for(condition: Callable[[], bool], processes: Sequence[subprocess.Popen]) -> None:
    """Wait until something is there, or all processes have ended."""
    while not condition() and _any_runs(processes):
        time.sleep(0.005)


def _any_runs(processes: Sequence[subprocess.Popen]) -> bool:
    return any(process.poll() is None for process in processes)
