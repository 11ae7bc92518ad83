"""Numbers of a training go to a tracker of the user's own, which never ends it."""

import json
import sys
from types import SimpleNamespace

import jax
import pytest

from cnn_jax import trackers
from cnn_jax.errors import UsageError
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig

TINY = {
    "model": "lenet5",
    "model_options": "filters=(4,), neurons=(8,)",
    "batch_size": 8,
    "log_every": 1,
    "warmup_steps": 0,
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """mine(text) makes a module of this text and returns a function name -> address."""

    def write(text):
        (tmp_path / "my_tracker.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "my_tracker", raising=False)
        return lambda name: f"my_tracker:{name}"

    return write


def warned(address, workdir, lines=((1, {"loss": 2.0}), (2, {"loss": 1.0}))):
    """Log these lines to the tracker and return what it warns of."""
    said = []
    trackers.check(address)
    log = trackers.open_tracker(TrainConfig(tracker=address), workdir, said.append)
    for step, metrics in lines:
        log(step, metrics)
    return said


def test_a_tracker_gets_the_options_the_folder_and_all_numbers_of_the_log(tmp_path, mine):
    address = mine(
        "seen = []\n"
        "def track(config, workdir):\n"
        "    seen.append((config['model'], workdir))\n"
        "    return lambda step, metrics: seen.append((step, metrics))\n"
    )("track")
    config = TrainConfig(**TINY, steps=2, tracker=address)
    loop.train(config, tmp_path / "run", devices=jax.devices()[:1])
    import my_tracker

    assert my_tracker.seen[0] == ("lenet5", tmp_path / "run")
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert my_tracker.seen[1:] == [(line.pop("step"), line) for line in written]
    assert {"eval_top1_error", "gradient_norm"} <= {
        *my_tracker.seen[-1][1],
        *my_tracker.seen[-2][1],
    }


def test_a_tracker_that_fails_is_told_once_and_the_training_goes_on(tmp_path, mine):
    address = mine(
        "def late(config, workdir):\n"
        "    def log(step, metrics):\n"
        "        raise ConnectionError('no network')\n"
        "    return log\n"
        "def early(config, workdir):\n"
        "    raise ConnectionError('no network')\n"
        "def nothing(config, workdir):\n"
        "    pass\n"
    )
    for name in ("late", "early", "nothing"):
        (line,) = warned(address(name), tmp_path)
        assert address(name) in line
    said = []
    config = TrainConfig(**TINY, steps=2, tracker=address("late"))
    progress = loop.Callbacks(say=said.append)
    assert loop.train(config, tmp_path / "run", progress, jax.devices()[:1]).step == 2
    assert sum("no network" in line for line in said) == 1


@pytest.mark.parametrize("address", ["wandb", "no_such_module:track", "json:no_such", "math:pi"])
def test_what_is_no_tracker_is_refused_before_the_training(address, tmp_path):
    config = TrainConfig(**TINY, steps=2, tracker=address)
    with pytest.raises(UsageError):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_the_first_process_tracks(tmp_path, mine, monkeypatch):
    address = mine("def track(config, workdir):\n    raise ConnectionError\n")("track")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert warned(address, tmp_path) == []


def test_weights_and_biases_gets_a_run_that_a_resumed_one_goes_on_in(tmp_path, monkeypatch):
    runs = []

    def init(**options):
        runs.append((options, logged := []))
        return SimpleNamespace(log=lambda metrics, step: logged.append((step, metrics)))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for _ in range(2):
        assert warned("cnn_jax.trackers:wandb", tmp_path) == []
    (first, logged), (second, _) = runs
    assert logged == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert first["id"] == second["id"]
    assert first["config"]["model"] == "resnet20"
    assert first["resume"] == "allow"


def test_without_weights_and_biases_a_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install 'cnn_jax\[wandb\]'"):
        warned("cnn_jax.trackers:wandb", tmp_path)
