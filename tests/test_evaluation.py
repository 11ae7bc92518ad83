"""Sums over a split, and the program that makes them."""

import jax
import numpy as np
import pytest

from cnn_jax import evaluation
from cnn_jax.data import datasets
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.models import create_model


def test_every_batch_is_added_up_once_in_wide_numbers():
    batches = [{"image": np.full(3, i, np.int32)} for i in range(5)]

    def step(scale, batch):
        return {"count": batch["image"].sum() * 2**29, "loss": np.float32(scale * 2**24 + 1)}

    sums = evaluation.add_up(step, 1, batches)
    assert sums["count"] == 30 * 2**29
    assert sums["count"].dtype == np.int64
    assert sums["loss"] == 5 * (2**24 + np.float32(1))
    assert sums["loss"].dtype == np.float64
    assert evaluation.add_up(step, 1, []) == {}


def test_a_batch_is_added_up_when_the_next_one_has_been_begun():
    happened = []

    class Number:
        def __init__(self, value):
            self.value = value

        def __array__(self, dtype=None, copy=None):
            happened.append(f"read {self.value}")
            return np.asarray(self.value)

    def step(_, batch):
        happened.append(f"begin {batch}")
        return {"count": Number(batch)}

    assert evaluation.add_up(step, None, [1, 2, 3])["count"] == 6
    assert happened == ["begin 1", "begin 2", "read 1", "begin 3", "read 2", "read 3"]


@pytest.fixture(scope="module")
def deep():
    """A deep network's model and variables."""
    model = create_model("resnet110", num_classes=10, depth=32)
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
    return model, model.init(jax.random.key(0), images)


def test_blocks_as_loops_give_the_same_metrics(deep):
    model, variables = deep
    dataset = datasets.load("digits", "test[:64]")

    def evaluate(**options):
        evaluator = evaluation.create_evaluator(
            model,
            dataset,
            Preprocessing(image_size=8, resize=8),
            batch_size=32,
            devices=jax.devices()[:1],
            **options,
        )
        return evaluator(variables)

    plain, looped = evaluate(), evaluate(loop_blocks=True)
    assert looped["examples"] == plain["examples"] == 64
    assert looped["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    np.testing.assert_array_equal(looped["confusion"], plain["confusion"])
