"""experiments.train and experiments.evaluate as their users run them, each in a process."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import create_model, save_weights
from cnn_jax.trained import from_workdir
from tests.command import run_command

ROOT = Path(__file__).parents[2]
TINY = [
    "--recipe=digits",
    "--model=lenet5",
    "--model_options=filters=(4,), neurons=(8,)",
    "--steps=8",
    "--checkpoint_every=4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trained(folder):
    """A run of eight steps: its folder and its results.json."""
    done = run_command("train", *TINY, f"--workdir={folder}/run", f"--data_dir={folder}/data")
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads((folder / "run" / "results.json").read_text())


def test_training_leaves_results_pictures_and_a_page(trained):
    workdir, results = trained
    assert results["step"] == 8
    assert len(results["parameters_sha256"]) == 64
    for name in ("config.json", "training.png", "confusion.png", "metrics.jsonl"):
        assert (workdir / name).stat().st_size > 0
    page = (workdir / "report.html").read_text()
    assert "Evaluation" in page
    assert 'src="http' not in page


def test_the_configuration_of_a_run_repeats_it_to_the_bit(trained, tmp_path):
    workdir, results = trained
    again = tmp_path / "again"
    done = run_command("train", f"--config={workdir}/config.json", f"--workdir={again}")
    assert done.returncode == 0, done.stderr
    assert (again / "config.json").read_text() == (workdir / "config.json").read_text()
    repeated = json.loads((again / "results.json").read_text())
    assert repeated["parameters_sha256"] == results["parameters_sha256"]


@pytest.mark.slow
def test_flags_override_the_configuration_of_a_run_and_a_recipe_beside_it_is_refused(
    trained, tmp_path
):
    workdir, _ = trained
    flags = (f"--config={workdir}", f"--workdir={tmp_path / 'other'}")
    done = run_command("train", *flags, "--steps=2", "--learning_rate=0.5", "--seed=1")
    assert done.returncode == 0, done.stderr
    before, after = (
        json.loads((folder / "config.json").read_text()) for folder in (workdir, tmp_path / "other")
    )
    # the warm-up is no longer than the run
    changed = {name for name in before if before[name] != after[name]} - {"warmup_steps"}
    assert changed == {"steps", "learning_rate", "seed"}
    done = run_command("train", *flags, "--recipe=digits")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_evaluation_needs_nothing_but_the_folder_and_counts_each_example_once(trained):
    workdir, training = trained
    for flags in ((), ("--batch_size=50",)):
        done = run_command("evaluate", f"--workdir={workdir}", *flags)
        assert done.returncode == 0, done.stderr
        results = json.loads((workdir / "results.json").read_text())
        assert results["examples"] == sum(map(sum, results["confusion"])) == 359
        assert results["top1_error"] == training["evaluation"]["top1_error"]
        assert results["loss"] == pytest.approx(training["evaluation"]["loss"], rel=1e-5)
        assert results["training"]["step"] == 8
        assert results["parameters_sha256"] == training["parameters_sha256"]


@pytest.mark.slow
def test_the_best_checkpoint_is_evaluated_to_what_training_kept_it_for(folder):
    flags = ["--keep_best=loss", "--checkpoint_every=2", "--keep=1", "--learning_rate=0.5"]
    done = run_command(
        "train", *TINY, *flags, f"--data_dir={folder}/data", f"--workdir={folder}/best"
    )
    assert done.returncode == 0, done.stderr
    best = json.loads((folder / "best" / "results.json").read_text())["best"]
    done = run_command("evaluate", f"--workdir={folder}/best", "--step=best")
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "best" / "results.json").read_text())
    assert results["step"] == best["step"]
    assert results["loss"] == pytest.approx(best["value"], rel=1e-5)
    assert results["training"]["best"] == best
    assert "best loss" in (folder / "best" / "report.html").read_text()
    done = run_command("evaluate", f"--workdir={folder}/best", "--step=bset")
    assert done.stderr == "error: --step=bset is no step; give a number, or best\n"


@pytest.mark.slow
def test_evaluation_takes_the_averaged_weights_or_the_raw_ones_and_says_which(folder):
    workdir = folder / "averaged"
    flags = (*TINY, "--ema_decay=0.999", f"--workdir={workdir}", f"--data_dir={folder}/data")
    done = run_command("train", *flags)
    assert done.returncode == 0, done.stderr
    training = json.loads((workdir / "results.json").read_text())
    for flag, expected in (("--noraw_weights", "evaluation"), ("--raw_weights", "raw_evaluation")):
        done = run_command("evaluate", f"--workdir={workdir}", flag)
        assert done.returncode == 0, done.stderr
        results = json.loads((workdir / "results.json").read_text())
        assert results["averaged"] == ("averaged weights" in done.stdout) == (flag[2:4] == "no")
        assert results["loss"] == pytest.approx(training[expected]["loss"], rel=1e-5)
        assert results["training"]["raw_evaluation"] == training["raw_evaluation"]


@pytest.mark.slow
def test_ten_crops_are_another_protocol(trained):
    done = run_command("evaluate", f"--workdir={trained[0]}", "--ten_crop", "--resize=18")
    assert done.returncode == 0, done.stderr
    results = json.loads((trained[0] / "results.json").read_text())
    assert results["protocol"]["crops"] == 10
    assert results["loss"] != trained[1]["evaluation"]["loss"]


@pytest.fixture(scope="module")
def weights(folder):
    """Weights of LeNet-5 as someone else might have published them."""
    model = create_model("lenet5")
    images = jax.ShapeDtypeStruct((1, 32, 32, 1), np.float32)
    variables = model.init(jax.random.key(3), images)
    save_weights("lenet5", variables, folder / "lenet5.safetensors")
    return folder / "lenet5.safetensors", variables


@pytest.mark.slow
def test_weights_are_evaluated_with_their_own_preprocessing(trained, folder, weights):
    flags = [f"--weights={weights[0]}", "--model=lenet5", "--dataset=digits"]
    done = run_command(
        "evaluate", *flags, f"--data_dir={folder}/data", f"--workdir={folder}/published"
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "published" / "results.json").read_text())
    assert results["examples"] == 359
    assert results["protocol"]["image_size"] == 32
    assert 0 < results["top5_error"] < results["top1_error"] < 1
    done = run_command(
        "evaluate", f"--weights={weights[0]}", "--model=resnet20", "--dataset=digits"
    )
    assert done.returncode == 2
    assert "does not fit resnet20" in done.stderr


@pytest.mark.slow
def test_fine_tuning_moves_what_is_not_frozen(trained, folder, weights):
    flags = [*TINY[:2], "--image_size=32", "--steps=2"]
    flags += [f"--init_from={weights[0]}", "--freeze=conv"]
    done = run_command("train", *flags, f"--data_dir={folder}/data", f"--workdir={folder}/tuned")
    assert done.returncode == 0, done.stderr
    params = from_workdir(folder / "tuned").variables["params"]
    for name, before in weights[1]["params"].items():
        kept = np.array_equal(params[name]["kernel"], before["kernel"])
        assert kept == name.startswith("conv"), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rate=0.3"], "another configuration (learning_rate: 0.1 there, 0.3 here)"),
        (["--dataset=digit"], "did you mean 'digits'?"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(trained, folder, flags, message):
    before = {file: file.stat().st_mtime_ns for file in trained[0].rglob("*")}
    done = run_command(
        "train", *TINY, f"--workdir={trained[0]}", f"--data_dir={folder}/data", *flags
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert before == {file: file.stat().st_mtime_ns for file in trained[0].rglob("*")}


@pytest.mark.slow
def test_an_unreadable_image_of_the_evaluation_is_one_line_after_a_training_or_skipped(
    draw_pets, tmp_path
):
    for split in ("train", "val"):
        draw_pets(tmp_path / "photos" / split, cat=(1, 0, 0), dog=(0, 1, 0))
    broken = tmp_path / "photos/val/dog/2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    flags = ["--model=lenet5", "--image_size=16", "--steps=2", "--batch_size=8"]
    workdir = tmp_path / "run"
    done = run_command(
        "train", f"--dataset=folder:{tmp_path}/photos", f"--workdir={workdir}", *flags
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"error: the evaluation of step 2 failed: {broken}: not a readable image"
    )
    assert json.loads((workdir / "results.json").read_text())["step"] == 2
    assert (workdir / "report.html").exists()
    done = run_command("evaluate", f"--workdir={workdir}", "--bad_images=skip")
    assert done.returncode == 0, done.stderr
    assert f"skipped {broken}" in done.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert (results["examples"], results["skipped"]) == (19, 1)


@pytest.mark.slow
def test_two_processes_train_as_one(trained, folder):
    flags = [*TINY, f"--data_dir={folder}/data", f"--workdir={folder}/two"]
    command = [sys.executable, "-m", "experiments.train", *flags]
    together = ["--coordinator_address=localhost:17831", "--num_processes=2"]
    processes = [
        subprocess.Popen([*command, *together, f"--process_id={i}"], cwd=ROOT) for i in range(2)
    ]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    results = json.loads((folder / "two" / "results.json").read_text())
    one, two = trained[1]["evaluation"], results["evaluation"]
    assert results["loss"] == pytest.approx(trained[1]["loss"], rel=1e-4)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert two["examples"] == 359
