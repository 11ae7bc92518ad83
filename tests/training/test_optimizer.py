"""Learning-rate schedules, step by step."""

import dataclasses

import numpy as np
import pytest

from cnn_jax.training.config import TrainConfig
from cnn_jax.training.optimizer import learning_rate_schedule

CONFIG = TrainConfig(steps=100, learning_rate=0.4, batch_size=128)


def rates(at, **options):
    schedule = learning_rate_schedule(dataclasses.replace(CONFIG, **options))
    return [float(schedule(step)) for step in at]


def test_cosine_falls_to_zero_in_half_a_period():
    assert rates([0, 50, 100]) == pytest.approx([0.4, 0.2, 0.0], abs=1e-7)


def test_cosine_may_end_above_zero():
    assert rates([100], final_learning_rate=0.1) == pytest.approx([0.04])


def test_warm_up_is_linear_and_precedes_the_cosine():
    expected = [0.0, 0.2, 0.4, 0.2]
    assert rates([0, 5, 10, 55], warmup_steps=10) == pytest.approx(expected, abs=1e-6)
    assert rates([0, 5], warmup_steps=10, warmup_start=0.5) == pytest.approx([0.2, 0.3])


def test_steps_fall_at_shares_of_the_run_warm_up_included():
    options = {"schedule": "step", "decay_at": (0.5, 0.75), "warmup_steps": 10}
    actual = rates([10, 49, 50, 74, 75, 99], **options)
    np.testing.assert_allclose(actual, [0.4, 0.4, 0.04, 0.04, 0.004, 0.004], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "at", "expected"),
    [
        # both round to the fourth of eight updates
        ({"steps": 8, "decay_at": (0.5, 0.53)}, [3, 4, 7], [0.4, 0.004, 0.004]),
        ({"decay_at": (0.5, 0.5, 0.5)}, [49, 50], [0.4, 0.0004]),
        # one within the warm-up, and both
        ({"decay_at": (0.1, 0.5), "warmup_steps": 20}, [10, 20, 49, 50], [0.2, 0.04, 0.04, 0.004]),
        ({"decay_at": (0.1, 0.15), "warmup_steps": 20}, [10, 19, 20, 99], [0.2, 0.38, 4e-3, 4e-3]),
        # the warm-up's end, and the run's
        ({"decay_at": (0.2, 1.0), "warmup_steps": 20}, [20, 99, 100], [0.04, 0.04, 0.004]),
        ({"decay_at": (0.5, 0.75), "warmup_steps": 100}, [50, 99, 100], [0.2, 0.396, 0.004]),
    ],
)
def test_no_step_of_the_schedule_is_lost(options, at, expected):
    np.testing.assert_allclose(rates(at, schedule="step", **options), expected, rtol=1e-5)


def test_the_rate_scales_with_the_batch_if_a_base_is_given():
    assert rates([0], base_batch_size=256) == pytest.approx([0.2])


def test_constant():
    assert rates([0, 99], schedule="constant") == pytest.approx([0.4, 0.4])
