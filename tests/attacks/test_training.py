"""Adversarial training: what a batch becomes, and that the step trains on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, create_model
from cnn_jax.attacks.training import divergence, perturbed
from cnn_jax.tasks.classification import cross_entropy, log_odds_against
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.state import create_state
from cnn_jax.training.step import create_train_step

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def loss_of(case):
    return lambda logits: log_odds_against(logits, jnp.asarray(case.labels)).sum()


@pytest.mark.parametrize("adversary", ["pgd", "fast", "trades"])
def test_it_stays_within_the_budget_and_raises_its_loss(case, adversary):
    eps = 0.04
    found = perturbed(
        case.logits_of, loss_of(case), case.images, KEY, adversary=adversary, eps=eps, steps=5
    )
    assert float(jnp.abs(found - case.images).max()) <= eps * (1 + 1e-12)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    clean, moved = case.logits_of(case.images), case.logits_of(found)
    if adversary == "trades":
        assert float(divergence(clean, moved).min()) > 0
    else:
        assert (cross_entropy(moved, case.labels) > cross_entropy(clean, case.labels)).all()


def test_divergence():
    p, q = np.log([[0.2, 0.8]]), np.log([[0.5, 0.5]]) + 3
    expected = 0.2 * np.log(0.2 / 0.5) + 0.8 * np.log(0.8 / 0.5)
    np.testing.assert_allclose(divergence(p, q), [expected], rtol=1e-12)
    np.testing.assert_allclose(divergence(p, p), [0], atol=1e-15)


CONFIG = TrainConfig(
    model="lenet5",
    model_options="filters=(4,), neurons=(8,)",
    num_classes=10,
    steps=3,
    image_size=8,
    batch_size=8,
    learning_rate=0.05,
    adversary_eps=0.1,
    adversary_steps=2,
)


def first_step(config, labels=range(8)):
    model = create_model("lenet5", 10, filters=(4,), neurons=(8,))
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    batch = {"image": image, "label": np.array(labels, np.int32)}
    variables = model.init(KEY, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    optimizer = create_optimizer(config, variables["params"])
    step = jax.jit(create_train_step(model, optimizer, config, (0.5,), (0.25,)))
    return step(create_state(model, optimizer, variables, ema=False), batch)[1]


def test_the_step_trains_on_the_adversary():
    with jax.enable_x64(False):
        loss = {
            adversary: float(first_step(dataclasses.replace(CONFIG, adversary=adversary))["loss"])
            for adversary in ("none", "pgd", "fast", "trades")
        }
        without = dataclasses.replace(CONFIG, adversary="trades", trades_beta=0.0)
        free = float(first_step(without)["loss"])
    assert loss["pgd"] > loss["none"]
    assert loss["fast"] > loss["none"]
    assert free == pytest.approx(loss["none"], rel=1e-5)
    assert loss["trades"] > free


@pytest.mark.parametrize("adversary", ["none", "pgd", "trades"])
def test_labels_outside_the_classes_are_no_loss_that_training_goes_on_from(adversary):
    config = dataclasses.replace(CONFIG, adversary=adversary)
    for wrong in (10, -1):
        with jax.enable_x64(False):
            metrics = first_step(config, [*range(7), wrong])
        assert np.isnan(float(metrics["loss"]))


def test_a_budget_in_units_of_255_is_told():
    with pytest.raises(UsageError, match=r"--adversary_eps=8 is not for pixels.*0.03137"):
        dataclasses.replace(CONFIG, adversary_eps=8)
