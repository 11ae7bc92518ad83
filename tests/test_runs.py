"""Runs are found in their folders, put together where the seed alone differs, and compared."""

import csv
import json
import re
import statistics
from html import unescape

import pytest

from cnn_jax import runs
from cnn_jax.errors import UsageError
from cnn_jax.reports import runs as runs_report
from cnn_jax.training.config import TrainConfig, identity


@pytest.fixture
def make(tmp_path):
    """make(name, error, **options) writes the folder of a run that ended with this error."""

    def make(name, error, step=4, **options):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = identity(TrainConfig(steps=4, **options))
        (folder / "config.json").write_text(json.dumps(config))
        lines = [{"step": at, "loss": 3.0 / at + error} for at in range(1, step + 1)]
        lines.append({"step": step, "eval_top1_error": error})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        evaluation = {"top1_error": error, "loss": 2 * error, "per_class_accuracy": {"0": 1.0}}
        results = {"step": step, "loss": 1.0, "evaluation": evaluation if step == 4 else None}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return make


def test_runs_that_differ_in_their_seed_are_one_setting_with_mean_and_spread(make, tmp_path):
    errors = {0.1: (0.25, 0.5, 0.375), 0.05: (0.125, 0.25, 0.0)}
    for rate, those in errors.items():
        for seed, error in enumerate(those):
            make(f"{rate},{seed}", error, learning_rate=rate, seed=seed)
    found = runs.find([tmp_path])
    assert runs.differing(found) == ["learning_rate", "seed"]
    best, other = runs.settings(found)
    assert (best.values, other.values) == ({"learning_rate": 0.05}, {"learning_rate": 0.1})
    for setting in (best, other):
        those = errors[setting.values["learning_rate"]]
        mean, spread, count = setting.results["evaluation.top1_error"]
        assert mean == pytest.approx(sum(those) / 3)
        assert spread == pytest.approx(statistics.stdev(those))
        assert count == 3


def test_settings_are_ranked_by_the_better_end_of_their_result(make, tmp_path):
    for name, share in (("a", 0.25), ("b", 0.75)):
        file = make(name, 0.5, model=f"resnet{20 if name == 'a' else 32}") / "results.json"
        file.write_text(json.dumps({"step": 4, "evaluation": {"mean_iou": share, "loss": share}}))
    best, _ = runs.settings(runs.find([tmp_path]))
    assert best.values["model"] == "resnet32"


def test_a_run_that_stopped_is_listed_and_counts_for_no_mean(make, tmp_path):
    make("whole", 0.25, seed=0)
    make("stopped", 0.75, seed=1, step=2)
    (setting,) = runs.settings(runs.find([tmp_path]))
    assert [run.finished for run in setting.runs] == [False, True]
    assert setting.results["evaluation.top1_error"] == runs.Summary(0.25, None, 1)
    _, ((_, finished, *_),) = runs_report.table([setting], ["loss"])
    assert finished == "1 of 2"


def test_an_option_that_an_older_run_does_not_have_counts_as_its_default(make, tmp_path):
    folder = make("old", 0.5)
    config = json.loads((folder / "config.json").read_text())
    del config["momentum"]
    (folder / "config.json").write_text(json.dumps(config))
    make("new", 0.25, seed=1)
    assert runs.differing(runs.find([tmp_path])) == ["seed"]


def test_a_run_that_was_evaluated_again_keeps_the_numbers_of_its_training(make):
    folder = make("run", 0.5)
    training = json.loads((folder / "results.json").read_text())
    again = {"top1_error": 0.125, "examples": 10, "training": training}
    (folder / "results.json").write_text(json.dumps(again))
    run = runs.read(folder)
    assert run.finished
    assert run.results["evaluation.top1_error"] == 0.125
    assert run.results["loss"] == 1.0


def test_the_page_shows_table_curves_and_runs_and_a_csv_holds_a_line_a_run(make, tmp_path, capsys):
    for seed in range(2):
        for rate in (0.1, 0.05):
            make(f"runs/{rate},{seed}", rate * (1 + seed), learning_rate=rate, seed=seed)
    folder = tmp_path / "comparison"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"folders": ["runs"]}))
    runs_report.write(folder, "Four runs", runs.find([tmp_path / "runs"]))
    with (folder / "runs.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert {(line["run"], line["evaluation.top1_error"]) for line in lines} == {
        ("0.1,0", "0.1"),
        ("0.1,1", "0.2"),
        ("0.05,0", "0.05"),
        ("0.05,1", "0.1"),
    }
    page = (folder / "report.html").read_text()
    assert (folder / "curves.png").stat().st_size > 0
    assert "0.075 \N{PLUS-MINUS SIGN} 0.035" in unescape(page)
    assert re.search(r"learning_rate .*top1 error", capsys.readouterr().out)
    results = json.loads((folder / "results.json").read_text())
    assert results["ranked_by"] == "evaluation.top1_error"
    assert results["settings"][0]["values"] == {"learning_rate": 0.05}


def test_folders_without_runs_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError):
            runs.find([folder])


def test_a_folder_that_is_named_twice_or_lies_in_another_counts_once(make, tmp_path):
    folder = make("a/run", 0.5)
    assert len(runs.find([tmp_path, tmp_path / "a", folder])) == 1
