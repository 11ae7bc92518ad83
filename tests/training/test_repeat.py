"""The options of a run that was, read back from its config.json."""

import dataclasses
import json

import pytest

from cnn_jax.errors import UsageError
from cnn_jax.training.config import TrainConfig, identity
from cnn_jax.training.repeat import options_of_run, override
from cnn_jax.workdir import open_workdir

RUN = TrainConfig(
    steps=10, image_size=32, eval_image_size=32, eval_resize=32, num_classes=10, decay_at=(0.5, 0.8)
)


@pytest.mark.parametrize("name", ["", "config.json"])
def test_the_options_of_a_folder_or_file_are_those_of_the_run(tmp_path, name):
    open_workdir(tmp_path, identity(RUN))
    assert TrainConfig(**options_of_run(tmp_path / name)) == RUN


def test_a_run_that_went_on_is_repeated_with_all_its_steps(tmp_path):
    open_workdir(tmp_path, identity(RUN), growing="steps")
    open_workdir(tmp_path, identity(dataclasses.replace(RUN, steps=20)), growing="steps")
    assert options_of_run(tmp_path)["steps"] == 20


def test_all_options_that_are_unknown_or_of_another_type_are_one_error(tmp_path):
    wrong = {"learning_rte": 0.1, "no_more": 1, "batch_size": "64", "flip": 1, "decay_at": [True]}
    (tmp_path / "config.json").write_text(json.dumps(identity(RUN) | wrong))
    with pytest.raises(UsageError) as told:
        options_of_run(tmp_path)
    for name in wrong:
        assert name in str(told.value)
    assert "momentum" not in str(told.value)


@pytest.mark.parametrize("text", [None, "[1]", "not JSON"])
def test_what_is_no_configuration_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        options_of_run(tmp_path)


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ({"image_size": 64}, {"eval_image_size", "eval_resize"}),
        ({"eval_image_size": 64}, {"eval_resize"}),
        ({"dataset": "shapes"}, {"num_classes"}),
        ({"dataset": "digits"}, set()),
        ({"epochs": 3.0}, {"steps"}),
        ({"learning_rate": 0.5}, set()),
    ],
)
def test_what_followed_from_an_option_goes_with_it(given, dropped):
    options = identity(RUN)
    assert override(options, given) == {
        name: value for name, value in (options | given).items() if name not in dropped
    }


def test_an_evaluation_at_another_size_than_training_stays():
    options = identity(dataclasses.replace(RUN, eval_image_size=48, eval_resize=56))
    assert override(options, {"image_size": 64})["eval_image_size"] == 48
    assert override(options, {"image_size": 64})["eval_resize"] == 56
