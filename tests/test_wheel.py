"""The wheel, installed into an empty folder and used from outside of the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(installed, *arguments, cwd):
    program = "import sys; from cnn_jax.__main__ import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )


def test_the_wheel_installs_one_package_with_its_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"cnn_jax"}
    assert "cnn_jax/py.typed" in names
    assert "cnn_jax/experiments/train.py" in names
    assert {"cnn_jax/playground/bundle.js", "cnn_jax/playground/browser/index.html"} < set(names)
    assert [name for name in names if "node_modules" in name] == []


def test_every_command_of_the_checkout_is_listed(installed, tmp_path):
    listed = run(installed, "--help", cwd=tmp_path).stdout
    commands = {file.stem for file in (REPOSITORY / "experiments").glob("[a-z]*.py")} - {"app"}
    assert set(listed.partition("commands: ")[2].split()) == commands


def test_an_unknown_command_is_one_line_with_the_nearest(installed, tmp_path):
    done = run(installed, "trian", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown command 'trian'; did you mean 'train'?\n"


def test_a_command_runs_from_the_installed_package(installed, tmp_path):
    flags = ["--recipe=digits", "--model=lenet5", "--steps=2", f"--data_dir={tmp_path / 'data'}"]
    done = run(installed, "train", *flags, "--workdir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/results.json").exists()
    done = run(installed, "evaluate", "--workdir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_its_help_names_the_installed_command(installed, tmp_path):
    assert "cnn-jax train --flag=value" in run(installed, "train", "--help", cwd=tmp_path).stdout
