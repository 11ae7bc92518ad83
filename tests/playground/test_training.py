"""A run that is started from the page: paused, stopped, gone on with, and looked into meanwhile."""

import pytest

from cnn_jax import UsageError
from cnn_jax.playground import server
from cnn_jax.playground.training import Training
from cnn_jax.training import checkpoint
from tests.playground.conftest import until

OPTIONS = {
    "model": "tests.playground.tiny:tiny",
    "epochs": None,
    "warmup_epochs": 0,
    "steps": 40,
    "batch_size": 16,
    "checkpoint_every": 20,
    "eval_every": 20,
    "norm_batch": None,
}


@pytest.fixture
def served(serve, tmp_path):
    training = Training(tmp_path, OPTIONS)
    return serve(server.Playground({"trained here": training.subject}, training))


def final_weights(folder):
    found = checkpoint.load(checkpoint.checkpoint_directory(folder), None)
    return found.step, checkpoint.parameters_sha256(found.state["params"])


@pytest.mark.slow
def test_a_run_is_paused_looked_into_stopped_and_gone_on_with_to_the_same_weights(served, tmp_path):
    assert "no run was started" in served.text("GET", "/api/subject")[1]
    frames = served.frames({"seed": 0}, "/api/train")
    while (frame := next(frames))["step"] is None or frame["step"] < 1:
        pass
    assert frame["steps"] == 40
    assert served.text("POST", "/api/pause", {"paused": True}) == (200, '{"paused":true}')
    while not (frame := next(frames))["text"].startswith("paused"):
        assert not frame["end"]
    again = {"seed": 0, "client": "another tab"}
    assert "training already" in served.text("POST", "/api/train", again)[1]
    frames.close()  # the tab
    until(lambda: not served.playground.training.described()["running"])
    stopped, _ = final_weights(tmp_path / "digits_seed0")
    assert 1 <= stopped < 40

    *_, last = served.frames({"seed": 0}, "/api/train")
    assert last["end"]
    assert last["step"] == 40
    assert "held-out images are read right" in last["text"]
    steps = [step for step, _ in last["series"]["loss"]]
    assert steps[-1] == 40
    assert [step for step, _ in last["series"]["held-out accuracy"]] == [20, 40]
    *_, answer = served.frames({"task": "classify", "photograph": "sample0"})
    assert len(answer["classes"]) == 5

    *_, last = served.frames({"seed": 0, "client": "another tab"}, "/api/train")
    assert last["step"] == 40  # it is through: nothing is trained twice
    other = Training(tmp_path / "other", OPTIONS)
    other.begin(0, served.playground.worker)(lambda make: None)
    assert final_weights(tmp_path / "other/digits_seed0") == final_weights(
        tmp_path / "digits_seed0"
    )


def test_pausing_what_does_not_train_is_refused(served):
    assert served.text("POST", "/api/pause", {"paused": True})[0] == 400
    assert "from 0 to" in served.text("POST", "/api/train", {"seed": -1})[1]


def test_a_network_that_was_not_trained_yet_is_told(tmp_path):
    with pytest.raises(UsageError, match="no run was started here yet"):
        Training(tmp_path).subject()
