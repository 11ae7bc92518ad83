"""A grid of runs: its values, its folders, and its processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from cnn_jax import sweeps
from cnn_jax.errors import UsageError
from cnn_jax.sweeps import Job, Slot


def python(name, text, folder):
    return Job(name, [sys.executable, "-c", text], folder / f"{name}.log")


@pytest.mark.parametrize(
    ("text", "options", "values"),
    [
        (".05,.1", {}, [".05", ".1"]),
        ("0..4", {"ranges": True}, ["0", "1", "2", "3", "4"]),
        ("7,0..2,1", {"ranges": True}, ["7", "0", "1", "2"]),
        ("0..4", {}, ["0..4"]),
        ("0.5;0.5,0.75;", {"commas": False}, ["0.5", "0.5,0.75", ""]),
        ("a;b,c", {}, ["a", "b", "c"]),
        ("", {"commas": False}, [""]),
    ],
)
def test_the_values_of_an_axis(text, options, values):
    assert sweeps.axis(text, **options) == values


def test_an_empty_range_is_refused():
    with pytest.raises(UsageError, match=r"write 0\.\.4"):
        sweeps.axis("4..0", ranges=True)


def test_a_grid_is_every_combination():
    points = sweeps.grid({"learning_rate": ["0.1", "0.2"], "seed": ["0", "1"]})
    assert len(points) == 4
    assert points[1] == {"learning_rate": "0.1", "seed": "1"}


def test_folders_are_named_after_the_settings_and_no_two_share_one():
    assert sweeps.folder_name({"learning_rate": "0.1", "seed": "0"}) == "learning_rate=0.1,seed=0"
    names = [
        sweeps.folder_name({"dataset": f"folder:{each}"}) for each in ("a/b", "a:b", "b" * 500)
    ]
    assert len(set(names)) == 3
    assert all("/" not in name and len(name) < 200 for name in names)


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path):
    jobs = [
        python("good", "print('fine')", tmp_path),
        python("bad", "import sys; print('first'); sys.exit('the reason')", tmp_path),
        python("later", "print('fine')", tmp_path),
    ]
    said = []
    assert sweeps.run_all(jobs, [Slot({}, ())] * 2, said.append) == ["bad"]
    (line,) = [line for line in said if "failed" in line]
    assert line.startswith("bad: failed with status 1: the reason")
    assert (tmp_path / "later.log").read_text() == "fine\n"


def test_each_run_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    shares = sweeps.slots()
    jobs = [
        python(
            name,
            "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1)",
            tmp_path,
        )
        for name in "ab"
    ]
    assert sweeps.run_all(jobs, shares, lambda line: None) == []
    assert {job.log.read_text() for job in jobs} == {"2\n", "5\n"}
    with pytest.raises(UsageError, match="2 GPUs"):
        sweeps.slots(jobs=3)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are chosen on Linux alone")
def test_without_a_gpu_the_runs_share_the_cores():
    cores = os.sched_getaffinity(0)
    assert [share.cores for share in sweeps.slots()] == [tuple(sorted(cores))]
    shares = sweeps.slots(jobs=len(cores))
    assert {core for share in shares for core in share.cores} == cores
    assert all(len(share.cores) == 1 for share in shares)
    with pytest.raises(UsageError, match="cores"):
        sweeps.slots(jobs=len(cores) + 1)


def test_sigterm_is_handed_on_and_no_further_run_is_begun(tmp_path):
    waits = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved')))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    jobs = [python("first", waits, tmp_path), python("second", waits, tmp_path)]

    def tell():
        while not jobs[0].log.exists() or "ready" not in jobs[0].log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell).start()
    with pytest.raises(KeyboardInterrupt):
        sweeps.run_all(jobs, [Slot({}, ())], lambda line: None)
    assert "saved" in jobs[0].log.read_text()
    assert not jobs[1].log.exists() or jobs[1].log.read_text() == ""


def test_a_sweep_on_slurm_without_its_engine_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'cnn_jax\[slurm\]'"):
        sweeps.run_by_submitit([], tmp_path, {}, lambda line: None)


@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_an_engine_runs_the_jobs_and_tells_of_those_that_fail(tmp_path, cluster):
    pytest.importorskip("submitit")
    jobs = [python("good", "print('fine')", tmp_path), python("bad", "1 / 0", tmp_path)]
    said = []
    options = {"timeout_min": 1}
    failed = sweeps.run_by_submitit(jobs, tmp_path / "jobs", options, said.append, cluster)
    assert failed == ["bad"]
    assert (tmp_path / "good.log").read_text() == "fine\n"
    assert "ZeroDivisionError" in (tmp_path / "bad.log").read_text()
    assert len(said) == 2


def test_slurm_that_is_not_there_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="slurm"):
        sweeps.run_by_submitit(
            [python("a", "", tmp_path)], tmp_path / "jobs", {}, lambda line: None
        )


def test_a_command_line_holds_the_flags():
    line = sweeps.command_of("json.tool", {"help": "true"})
    assert line[-1] == "--help=true"
    assert subprocess.run([*line[:4], "--help"], capture_output=True).returncode == 0
