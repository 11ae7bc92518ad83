"""Several processes train as one: the same examples, the same update, one set of files."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import portpicker
import pytest
from PIL import Image

from cnn_jax.data.datasets import Dataset
from cnn_jax.training import checkpoint, loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.log import read_log
from cnn_jax.training.task import TASKS

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = 30


def scenes():
    """Grey images of 8 pixels, each of its own shade, with what any task reads."""

    def encoded(value):
        file = io.BytesIO()
        Image.new("L", (8, 8), value).save(file, "PNG")
        return file.getvalue()

    examples = [
        {
            "image": encoded(8 * i),
            "label": i % 2,
            "mask": np.full((8, 8), i % 2, np.uint8),
            "objects": {"bbox": np.float32([[0, 0, 1, 1]]), "label": np.array([i % 2])},
        }
        for i in range(EXAMPLES)
    ]
    names = ("even", "odd")
    return Dataset("scenes", "train", examples, 2, names, (8, 8, 3), (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("task", TASKS)
def test_every_example_of_an_epoch_is_read_once_whatever_the_hosts_it_goes_on_with(task):
    config = TrainConfig(batch_size=12, image_size=8, max_objects=1, num_threads=0)

    def shades(start, steps, hosts):
        batches = [
            TASKS[task].train_batches(
                scenes(),
                config,
                image_size=8,
                start_step=start,
                process_index=host,
                process_count=hosts,
            )
            for host in range(hosts)
        ]
        found = []
        for host in batches:
            for batch in islice(host, steps):
                assert len(batch["image"]) == 12 // hosts
                found += (batch["image"][:, 0, 0, 0] // 8).tolist()
        return found

    # two epochs in five batches, with the hosts changed within an epoch
    read = shades(0, 1, 1) + shades(1, 1, 4) + shades(2, 2, 2) + shades(4, 1, 3)
    assert Counter(read) == dict.fromkeys(range(EXAMPLES), 2)
    assert sorted(shades(0, 5, 1)) == sorted(read)


TRAIN = """
import json, os, signal, sys
import jax
devices, processes, number, port, *runs = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", int(devices))
if int(processes) > 1:
    jax.distributed.initialize(f"localhost:{port}", int(processes), int(number))
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.task import TASKS
for run in runs:
    task, workdir, options, *told = json.loads(run)
    def tell(step, metrics):
        if told == [jax.process_index(), step]:
            os.kill(os.getpid(), signal.SIGTERM)
    callbacks = loop.Callbacks(update=tell)
    result = loop.train(TrainConfig(**options), workdir, callbacks, task=TASKS[task])
    if jax.process_index() == 0:
        print(json.dumps([result.step, result.parameters_sha256]), flush=True)
"""


def train(runs, processes, devices=4):
    """Train runs of (task, folder, options) in so many processes that share the devices.

    A run may have two numbers more: of the process that is told to stop, and of the step at which.
    """
    port = portpicker.pick_unused_port()
    shared = [json.dumps(run) for run in runs]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", TRAIN, str(devices // processes), str(processes)]
            + [str(number), str(port), *shared],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    ended = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors
    return ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes, a folder each."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, level in (("dark", 0), ("light", 150)):
        (folder / name).mkdir()
        for i in range(14):
            pixels = (random.integers(0, 100, (8, 8, 3)) + level).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    from cnn_jax.data import datasets

    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("shapes", folder)
    return str(folder)


USUAL = {"steps": 4, "batch_size": 8, "learning_rate": 0.01, "checkpoint_every": 2, "log_every": 1}
SMALL = USUAL | {"dataset": "shapes", "image_size": 32, "train_split": "train[:40]"}
SMALL |= {"eval_split": "test[:8]", "flip": True}
OPTIONS = {
    "localization": SMALL
    | {"model": "localizer_resnet18", "model_options": "features=4, stage_sizes=(1, 1, 1, 1)"},
    "segmentation": SMALL | {"model": "unet", "model_options": "features=(4, 8)"},
    "detection": SMALL
    | {"model": "maskrcnn_resnet10_fpn", "image_size": 64, "clip_norm": 1.0, "batch_size": 4},
}


def assert_trained_alike(workdir, other, tolerance=1e-4):
    states = [
        checkpoint.load(checkpoint.checkpoint_directory(folder)).state
        for folder in (workdir, other)
    ]
    for name in ("params", "batch_stats"):
        for got, want in zip(*(jax.tree.leaves(state[name]) for state in states), strict=True):
            np.testing.assert_allclose(got, want, atol=tolerance, rtol=tolerance)


def options_of_folder(folder):
    return USUAL | {
        "model": "lenet5",
        "model_options": "filters=(4,), neurons=(16,)",
        "dataset": folder,
        "train_split": "train",
        "image_size": 8,
        "ema_decay": 0.9,
        "flip": True,
    }


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_the_first_writes(folder, tmp_path):
    options = options_of_folder(folder)
    config = TrainConfig(**options)
    one = loop.train(config, tmp_path / "one", devices=jax.devices()[:4])
    (first, _), (second, _) = train([("classification", str(tmp_path / "two"), options)], 2)
    assert json.loads(first.splitlines()[-1])[0] == one.step == 4
    assert "sha" not in second
    assert_trained_alike(tmp_path / "two", tmp_path / "one")
    assert [line["step"] for line in read_log(tmp_path / "two") if "loss" in line] == [1, 2, 3, 4]


@pytest.mark.slow
def test_what_two_processes_began_one_ends(folder, tmp_path):
    options = options_of_folder(folder) | {"schedule": "constant", "shard_state": True}
    train([("classification", str(tmp_path / "run"), options | {"steps": 2})], 2)
    config = TrainConfig(**options)
    assert loop.train(config, tmp_path / "run", devices=jax.devices()[:2]).step == 4
    whole = dataclasses.replace(config, shard_state=False)
    loop.train(whole, tmp_path / "one", devices=jax.devices()[:1])
    assert_trained_alike(tmp_path / "run", tmp_path / "one")


@pytest.mark.slow
def test_where_one_process_is_told_to_stop_both_save_that_step_and_go_on_as_if_never_stopped(
    folder, tmp_path
):
    options = options_of_folder(folder) | {"steps": 14, "checkpoint_every": 100}
    stopped, whole = str(tmp_path / "stopped"), str(tmp_path / "whole")
    (first, _), _ = train([("classification", stopped, options, 1, 3)], 2)
    assert json.loads(first.splitlines()[-1])[0] == 10  # they ask each other every tenth step
    assert checkpoint.steps(checkpoint.checkpoint_directory(stopped)) == [10]
    runs = [("classification", stopped, options), ("classification", whole, options)]
    (first, _), _ = train(runs, 2)
    resumed, never_stopped = first.splitlines()[-2:]
    assert json.loads(resumed)[0] == 14
    assert resumed == never_stopped  # the parameters' hash, too


@pytest.mark.large
@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_trains_each_task_alike(shapes, tmp_path, processes):
    def runs(name):
        return [
            (task, str(tmp_path / name / task), options | {"data_dir": shapes})
            for task, options in OPTIONS.items()
        ]

    train(runs("one"), 1)
    train(runs("several"), processes)
    for task in OPTIONS:
        # a detector chooses among its proposals, which rounding may change
        tolerance = 1e-3 if task == "detection" else 1e-4
        assert_trained_alike(tmp_path / "several" / task, tmp_path / "one" / task, tolerance)
