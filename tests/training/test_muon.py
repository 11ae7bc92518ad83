"""Muon: the authors' filters, and SGD's rates for the rest."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.muon import muon, orthogonalized
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.weights.convert import from_published_layout
from tests.references import parity

REFERENCES = Path(__file__).parents[1] / "references"


def test_filters_move_as_in_the_authors_script():
    shapes = {"wide.weight": (8, 3, 3, 3), "tall.weight": (16, 1, 2, 2)}

    def filled(prefix=""):
        return {
            name: jnp.asarray(from_published_layout("kernel", parity.fill(prefix + name, shape)))
            for name, shape in shapes.items()
        }

    with jax.enable_x64(True):
        filters = filled()
        rule = orthogonalized(lambda step: 0.24, 0.6, iterations=3, normalize=True)
        state = rule.init(filters)
        for step in range(3):
            updates, state = rule.update(filled(f"{step}."), state, filters)
            filters = optax.apply_updates(filters, updates)
    with np.load(REFERENCES / "airbench.npz") as expected:
        for name, kernel in filters.items():
            theirs = from_published_layout("kernel", expected[f"muon/{name}"])
            np.testing.assert_allclose(kernel, theirs, rtol=0, atol=1e-12)


def test_the_rest_follows_its_own_rates_to_the_end_of_its_share():
    params = {"whiten": {"bias": jnp.zeros(2)}, "head": {"kernel": jnp.zeros((2, 3))}}
    gradients = jax.tree.map(jnp.ones_like, params)
    rates = {"whiten": (2.0, 0.5), ".*": (3.0, 1.0)}
    course = optax.linear_schedule(1.0, 0.0, 8)
    rule = muon(course, 0.1, 0.9, 0.0, None, sgd_momentum=0.0, sgd_rates=rates)
    state, moves = rule.init(params), []
    for _ in range(5):
        updates, state = rule.update(gradients, state, params)
        moves.append((updates["whiten"]["bias"][0], updates["head"]["kernel"][0, 0]))
    expected = [(-2.0, -3.0), (-1.5, -2.625), (-1.0, -2.25), (-0.5, -1.875), (0.0, -1.5)]
    np.testing.assert_allclose(moves, expected, rtol=1e-6)


def test_decay_takes_the_same_of_every_weight_whatever_its_rate():
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    rates = {"a": (2.0, 1.0), "b": (50.0, 1.0)}
    rule = muon(lambda step: 1.0, 0.1, 0.9, 0.01, None, sgd_momentum=0.0, sgd_rates=rates)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    np.testing.assert_allclose([updates["a"], updates["b"]], -0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sgd_rates={'whiten': (1.0, 1.0)}", "no rate for head/kernel"),
        ("rounds=3", "optimizer_options.*unexpected keyword argument 'rounds'"),
        ("iterations", "cannot read --optimizer_options"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    config = TrainConfig(steps=1, optimizer="muon", optimizer_options=options)
    with pytest.raises(UsageError, match=message):
        create_optimizer(config, {}).init({"head": {"kernel": jnp.zeros((2, 3))}})
