"""experiments.sweep and experiments.runs as their users run them."""

import csv
import json
import os

import pytest

from tests.command import run_command

TINY = (
    *("train", "--recipe=digits", "--model=lenet5", "--steps=2"),
    "--model_options=filters=(4,), neurons=(8,)",
)


@pytest.mark.slow
def test_a_sweep_runs_the_grid_once_and_ends_with_a_table_and_a_page(tmp_path):
    flags = (*TINY, "--learning_rate=.05,.1", "--seed=0..1", f"--workdir={tmp_path}/sweep")
    done = run_command("sweep", *flags)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert results["ranked_by"] == "evaluation.top1_error"
    assert sorted(each["values"]["learning_rate"] for each in results["settings"]) == [0.05, 0.1]
    means = [each["results"]["evaluation.top1_error"] for each in results["settings"]]
    assert [each["count"] for each in means] == [2, 2]
    assert means[0]["mean"] <= means[1]["mean"]
    names = {"learning_rate=0.05,seed=0", "learning_rate=0.1,seed=1"}
    assert names <= set(os.listdir(tmp_path / "sweep"))
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "learning_rate=0.1,seed=1/report.html" in page

    again = run_command("sweep", *flags[:-2], "--seed=0..2", flags[-1])  # another seed
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("finished before") == 4
    assert again.stderr.count(": done") == 2

    compared = run_command("runs", tmp_path / "sweep", f"--workdir={tmp_path}/compared")
    assert compared.returncode == 0, compared.stderr
    with (tmp_path / "compared" / "runs.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 6

    other = run_command("sweep", *flags, "--batch_size=32")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "another configuration" in other.stderr


@pytest.mark.slow
def test_what_is_wrong_in_a_grid_is_one_error_before_any_run(tmp_path):
    faults = {
        ("train", "--learning_rate=.05,much"): "learning_rate",
        ("train", "--learning_rat=.05,.1"): "did you mean '--learning_rate'",
        ("train", "--seed=0,1", "--seed=2"): "given twice",
        ("train", "--crop=pad,none", "--pad_mode=reflect"): "pad_mode",
        ("evaluate",): "unknown training command",
        (): "no command",
    }
    for flags, text in faults.items():
        done = run_command("sweep", *flags, f"--workdir={tmp_path}/sweep")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert text in done.stderr
        assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_comparing_needs_a_folder_of_runs(tmp_path):
    for flags in ((), (tmp_path,)):
        done = run_command("runs", *flags)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("error: no ")
