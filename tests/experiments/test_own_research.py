"""The example of a package outside of ours, run by the wheel, outside of the repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def command(installed, tmp_path_factory):
    """command(name, *flags, cwd=...) -> the finished process, by default in the example's copy."""
    folder = tmp_path_factory.mktemp("elsewhere") / "own_research"
    shutil.copytree(REPOSITORY / "examples" / "own_research", folder)

    def command(name, *flags, cwd=folder):
        return subprocess.run(
            [sys.executable, "-P", "-m", "cnn_jax", name, *flags],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )

    command.folder = folder
    return command


@pytest.fixture(scope="module")
def run(command):
    """The results of a run of its recipe."""
    flags = ("--plugin=own_research", "--recipe=gratings", "--epochs=10", "--workdir=run")
    done = command("train", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads((command.folder / "run" / "results.json").read_text())


@pytest.mark.slow
def test_its_network_learns_its_data_by_its_loss(run):
    assert run["evaluation"]["top1_error"] < 0.2  # of four classes


@pytest.mark.slow
def test_its_attack_is_found_through_the_run(command, run):
    flags = ("--workdir=run", "--attack=random_signs", "--eps=32/255", "--examples=40")
    done = command("adversarial", *flags)
    assert done.returncode == 0, done.stderr
    assert "random_signs, linf, eps 0.1255: 40 images" in done.stdout


@pytest.mark.slow
def test_evaluation_finds_it_again_or_says_what_is_missing(command, run, tmp_path):
    done = command("evaluate", "--workdir=run")
    assert done.returncode == 0, done.stderr
    error = f"top-1 error {run['evaluation']['top1_error']:.2%}"
    assert f"gratings test: 500 examples, {error}" in done.stdout
    done = command("evaluate", f"--workdir={command.folder / 'run'}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot import own_research for --plugin=own_research: No")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_fills_a_table_of_its_settings(command):
    grid = ("--model=energy_net,lenet5", "--seed=0..1", "--train_split=train[:10%]", "--steps=2")
    flags = ("--plugin=own_research", "--recipe=gratings", *grid, "--workdir=sweep")
    done = command("sweep", "train", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads((command.folder / "sweep" / "results.json").read_text())
    models = {each["values"]["model"] for each in found["settings"]}
    assert models == {"energy_net", "lenet5"}
    for setting in found["settings"]:
        assert setting["results"]["evaluation.top1_error"]["count"] == 2  # seeds


@pytest.mark.slow
def test_benchmarks_workers_find_it(command, run):
    flags = ("--task=pgd", "--run=run", "--rounds=1", "--turn_seconds=0.01", "--batch_size=2")
    done = command("benchmark", *flags, "--workdir=speed")
    assert done.returncode == 0, done.stderr
    assert "pgd energy_net, batch 2, 16 x 16 pixels" in done.stdout


@pytest.mark.slow
def test_addresses_take_the_place_of_names(command):
    flags = {
        "model": "own_research.energy_net:energy_net",
        "model_options": "filters=4",
        "dataset": "own_research.gratings:gratings",
        "train_split": "train[:50%]",
        "loss": "own_research.margin:margin",
        "optimizer": "optax.lion",
        "steps": "3",
        "workdir": "addresses",
    }
    done = command("train", *(f"--{name}={value}" for name, value in flags.items()))
    assert done.returncode == 0, done.stderr
    assert (command.folder / "addresses" / "results.json").exists()


@pytest.mark.slow
def test_a_loss_is_refused_where_none_takes_its_place(command):
    done = command("detect", "--loss=own_research.margin:margin", "--workdir=detector")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --loss is not for detect")
