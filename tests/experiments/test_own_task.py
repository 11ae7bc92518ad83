"""A task from outside of the package is trained, evaluated and found again by its run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

PLUGIN = '''\
"""Regression: the digit as a number, not as a class."""

from functools import partial

import jax.numpy as jnp

import cnn_jax
from cnn_jax.data.pipeline import evaluation_batches
from cnn_jax.evaluation import Scoring
from cnn_jax.layers import dense
from cnn_jax.models.entry import Entry
from cnn_jax.training import losses, task
from cnn_jax.training.objective import of_outputs


def regressor(scope, images, num_classes):
    del num_classes  # one number, whatever the classes
    return scope.child(dense, "head")(images.reshape(len(images), -1), 1)[:, 0]


@losses.replaceable()
def loss(outputs, auxiliary, batch, *rest):
    mean = jnp.square(outputs - batch["label"]).mean()
    return mean, {"loss": mean}


def metric_sums(outputs, batch):
    error = jnp.abs(outputs - batch["label"]) * batch["weight"]
    return {"error": error.sum(), "examples": batch["weight"].sum()}


def summarize(sums, class_names):
    count = int(sums["examples"])
    return {"examples": count, "absolute_error": float(sums["error"]) / count}


SCORING = Scoring("regression", evaluation_batches, metric_sums, summarize, ("one",))
REGRESSION = task.CLASSIFICATION._replace(
    name="regression",
    reads=task.IMAGES,
    objective=of_outputs(loss, lambda outputs, batch: -outputs.sum()),
    evaluator=partial(task.evaluator_of, SCORING),
    logged=("absolute_error",),
    headline=lambda metrics: f"mean absolute error {metrics['absolute_error']:.4f}",
    total_weight=lambda batch, class_weights: None,
)
cnn_jax.register_task(REGRESSION, better={"absolute_error": "min"})
cnn_jax.register_model("regressor", Entry(regressor, 16, 1, 10, "regression"))
'''


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """command(name, *flags) -> the finished process, in a folder with the plugin."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "digit_value.py").write_text(PLUGIN)

    def command(name, *flags):
        return subprocess.run(
            [sys.executable, "-P", "-m", "cnn_jax", name, *flags],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )

    command.folder = folder
    return command


TRAIN = ("--plugin=digit_value", "--recipe=digits", "--model=regressor", "--label_smoothing=0")


@pytest.mark.slow
def test_a_task_of_ones_own_is_trained_evaluated_and_found_again(command):
    flags = ("--steps=60", "--learning_rate=0.01", "--keep_best=absolute_error", "--workdir=run")
    done = command("train", *TRAIN, *flags)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr  # of what the page shows
    results = json.loads((command.folder / "run" / "results.json").read_text())
    found = results["evaluation"]
    assert found["examples"] == 359
    assert found["absolute_error"] < 2.2  # the mean digit as an answer is 2.5 off
    assert results["best"]["metric"] == "absolute_error"
    assert "absolute_error" in (command.folder / "run" / "report.html").read_text()

    done = command("evaluate", "--workdir=run")  # knows its plugin
    assert done.returncode == 0, done.stderr
    line = f"digits test: mean absolute error {found['absolute_error']:.4f}\n"
    assert done.stdout.endswith(line)
    again = json.loads((command.folder / "run" / "results.json").read_text())
    assert again["absolute_error"] == pytest.approx(found["absolute_error"], rel=1e-6)
    assert again["training"]["step"] == 60


@pytest.mark.slow
def test_what_is_not_of_the_task_is_refused(command):
    done = command("train", *TRAIN, "--mixup=0.2", "--workdir=refused")
    message = "error: --mixup is not for regression; leave it out\n"
    assert (done.returncode, done.stderr) == (2, message)
    assert not (command.folder / "refused").exists()
