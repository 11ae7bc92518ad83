"""Disturbed runs, of a command that counts in the place of training."""

import os
import shutil
import time

import pytest

from cnn_jax.reports import faults as report
from cnn_jax.runtime import faults
from cnn_jax.runtime.faults import Trial

COUNT = '''
"""Counts to 20 and goes on where it stopped; with --forget it does not.

--read=FILE reads a file at each step; with --hurry it fails if it takes a minute.
"""
import json, os, signal, sys, time
from pathlib import Path

workdir = Path(next(each for each in sys.argv if each.startswith("--workdir=")).partition("=")[2])
signal.signal(signal.SIGTERM, lambda *_: (print("told to stop", flush=True), sys.exit(0)))
checkpoints = workdir / "checkpoints"
checkpoints.mkdir(parents=True, exist_ok=True)
state = checkpoints / "state"
count = int(state.read_text()) if state.exists() else 0
began = count if "--forget" in sys.argv else 0
clock = time.time()
read = [Path(each.partition("=")[2]) for each in sys.argv if each.startswith("--read=")]
for count in range(count, 20):
    time.sleep(0.02)
    whole = state.with_name("new")
    whole.write_text(str(count + 1))
    whole.replace(state)
    for file in read:
        if file.read_text() != "whole":
            sys.exit(f"ValueError: {file} is not whole")
    if "--hurry" in sys.argv and not 0 <= time.time() - clock < 60:
        sys.exit("ValueError: it took too long")
    whole.write_text("{}")
    whole.replace(workdir / "metrics.jsonl")
if "--fail" in sys.argv:
    sys.exit("ValueError: it fails")
(workdir / "results.json").write_text(json.dumps({"parameters_sha256": f"{20 - began}"}))
'''


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """trial(*words) -> a trial of the command above."""
    (tmp_path / "count_up.py").write_text(COUNT)
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path), prepend=os.pathsep)

    def make(*words):
        return Trial("counting", ("count_up", *words), 1, tmp_path / "runs")

    return make


def test_a_command_that_goes_on_ends_with_the_same_bits_however_often_it_is_killed(trial):
    own = trial()
    want, seconds = faults.in_peace(own)
    rows = list(faults.killed(own, want, seconds, kills=4, seed=1))
    assert sum(row["kills"] for row in rows) == 4
    assert all(row["same_bits"] and row["as_it_should"] for row in rows)
    assert report.summary(rows).startswith(f"{len(rows)} of {len(rows)} runs ended as they should")


def test_quick_trials_are_killed_more_often():
    assert faults.shares(5, [1, 10, 10]) == [2, 2, 1]
    assert faults.shares(30, [1, 10, 2]) == [19, 2, 9]
    assert faults.shares(0, [1, 10]) == [0, 0]


def test_a_command_that_forgets_is_told(trial):
    own = trial("--forget")
    want, _ = faults.in_peace(own)
    row = faults.terminated(own, want, "while it saves")
    assert (row["same_bits"], row["as_it_should"]) == (False, False)
    assert row["told"] == "told to stop"
    assert "| no | NO | told to stop |" in report.as_markdown([row])


def test_a_process_that_starts_late_is_waited_for(trial):
    own = trial()
    assert faults.late(own, faults.in_peace(own)[0], 0.2)["as_it_should"]


def test_a_command_that_stands_still_goes_on(trial, monkeypatch):
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: None)
    own = trial()
    assert faults.paused(own, faults.in_peace(own)[0])["as_it_should"]


@pytest.fixture
def file(tmp_path):
    """A file of data."""
    file = tmp_path / "image"
    file.write_text("whole")
    return file


def test_a_disk_that_does_not_answer_is_waited_for(trial, file):
    own = trial(f"--read={file}")
    want, _ = faults.in_peace(own)
    began = time.monotonic()
    row = faults.stalled(own, want, file, 0.5)
    assert row["as_it_should"]
    assert time.monotonic() - began > 0.5
    assert file.read_text() == "whole"


def test_a_command_that_reads_nothing_meets_no_stalled_disk(trial, file):
    own = trial()
    assert not faults.stalled(own, faults.in_peace(own)[0], file, 0.5)["as_it_should"]


@pytest.mark.parametrize("how", ["missing", "unreadable"])
def test_a_file_of_the_data_has_to_be_named(trial, file, how):
    own = trial(f"--read={file}")
    row = faults.without_file(own, faults.in_peace(own)[0], file, "an image", how)
    assert (row["fault"], row["same_bits"]) == (f"an image that is {how}", True)
    assert row["as_it_should"]
    assert file.name in row["told"]


def test_a_clock_that_jumps_is_met_by_those_who_read_it(trial):
    for words, right in (((), True), (("--hurry",), False)):
        own = trial(*words)
        want, _ = faults.in_peace(own)
        assert faults.jumped(own, want)["as_it_should"] == right
        shutil.rmtree(own.folder)


def test_a_command_that_fails_undisturbed_is_no_trial(trial):
    with pytest.raises(RuntimeError, match="fails undisturbed: ValueError: it fails"):
        faults.in_peace(trial("--fail"))


def test_a_process_that_hangs_is_ended(trial):
    own = trial()
    [process] = faults.start(own, own.folder / "run")
    assert faults.ended([process], 0.05) == [None]
