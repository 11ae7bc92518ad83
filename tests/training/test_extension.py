"""What a longer run's line says of its schedule."""

import dataclasses

import pytest

from cnn_jax.training.config import TrainConfig
from cnn_jax.training.extension import consequence

CONFIG = TrainConfig(steps=20, image_size=32, learning_rate=1.0, schedule="linear")
TEN = {"steps": 10}


def test_the_learning_rate_before_and_after_is_named():
    line = consequence(CONFIG, TEN, 10)
    assert line == (
        "the run grows from 10 to 20 steps: the schedule is now that of 20 steps, so the learning "
        "rate goes on at 0.5 after 0.1; the first 10 steps followed that of 10, and the result is "
        "not that of 20 steps from the start"
    )


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"schedule": "constant"}, 10),
        ({"schedule": "step", "decay_at": (0.9,)}, 8),  # before any fall
        ({"warmup_steps": 10}, 9),  # within the warm-up
    ],
)
def test_a_run_that_would_have_gone_the_same_way_is_told_so(options, start):
    config = dataclasses.replace(CONFIG, **options)
    line = "the run grows from 10 to 20 steps; so far it went as 20 steps from the start would have"
    assert consequence(config, TEN, start) == line


def test_images_that_become_smaller_again_are_named():
    config = dataclasses.replace(
        CONFIG, schedule="constant", start_image_size=16, image_size_stages=2
    )
    assert ", images of 16 pixels after 32; " in consequence(config, TEN, 8)


def test_a_run_that_does_not_grow_has_nothing_to_say():
    assert consequence(CONFIG, {"steps": 20}, 10) is None
    assert consequence(CONFIG, {}, 0) is None
