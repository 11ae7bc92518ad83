"""Learning-rate schedules, step by step, and rules of the update from outside."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import plugins
from cnn_jax.errors import UsageError
from cnn_jax.training.config import OPTIMIZERS, TrainConfig
from cnn_jax.training.optimizer import (
    create_optimizer,
    learning_rate_schedule,
    register_optimizer,
)

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


# --- rules from outside -------------------------------------------------------------------------

PARAMS = {
    "kernel": jnp.linspace(-1, 1, 12).reshape(3, 4),
    "bias": jnp.linspace(0.1, 1, 4),
}


def parameters_after(steps=3, **options):
    config = dataclasses.replace(CONFIG, **options)
    rule = create_optimizer(config, PARAMS)
    params, state = PARAMS, rule.init(PARAMS)
    for step in range(steps):
        gradients = jax.tree.map(lambda leaf, step=step: jnp.cos(leaf + step), params)
        updates, state = rule.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"nesterov": True, "weight_decay": 0.1}),
        ("sgd", {"momentum": 0.5, "decay_norms_and_biases": True}),
        ("adamw", {"momentum": 0.8, "weight_decay": 0.3, "optimizer_options": "b2=0.9"}),
        ("lamb", {"weight_decay": 0.3, "decay_norms_and_biases": True}),
    ],
)
def test_the_flags_mean_the_same_for_optaxs_own_rules(name, options):
    ours, optaxs = (parameters_after(optimizer=each, **options) for each in (name, f"optax.{name}"))
    jax.tree.map(np.testing.assert_array_equal, ours, optaxs)


def test_a_rule_without_weight_decay_finds_it_in_the_gradient():
    rule = optax.chain(
        optax.add_decayed_weights(0.3, {"kernel": True, "bias": False}), optax.rmsprop(0.4)
    )
    params, state = PARAMS, rule.init(PARAMS)
    gradients = jax.tree.map(jnp.cos, PARAMS)
    updates, _ = rule.update(gradients, state, params)
    expected = optax.apply_updates(params, updates)
    options = {"weight_decay": 0.3, "optimizer_options": "momentum=None"}
    actual = parameters_after(1, optimizer="optax.rmsprop", **options)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), actual, expected)


def test_a_rule_is_found_by_its_address():
    ours = parameters_after(optimizer="optax.lion")
    jax.tree.map(np.testing.assert_array_equal, ours, parameters_after(optimizer="optax:lion"))


def test_a_rule_is_registered_by_name(monkeypatch):
    monkeypatch.setattr(plugins, "REGISTERED", {})
    monkeypatch.setitem(OPTIMIZERS, "slow", None)  # which is gone after the test
    del OPTIMIZERS["slow"]
    register_optimizer("slow", lambda learning_rate: optax.sgd(0.0))
    jax.tree.map(np.testing.assert_array_equal, parameters_after(optimizer="slow"), PARAMS)
    for name in ("slow", "sgd"):
        with pytest.raises(UsageError, match=f"^there is an optimizer '{name}' already"):
            register_optimizer(name, optax.sgd)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"optimizer": "optax.lionn"},
            "^unknown optimizer of optax's 'lionn'; did you mean",
        ),
        ({"optimizer": "optax.scale"}, "^unknown optimizer of optax's 'scale'"),
        (
            {"optimizer": "torch.adam"},
            "^--optimizer=torch.adam is not understood; write optax",
        ),
        ({"optimizer": "optax.lion", "nesterov": True}, "^--optimizer=optax.lion takes no --nest"),
        ({"optimizer": "optax.adagrad", "momentum": 0.5}, "takes no --momentum; leave it out"),
        ({"optimizer": "optax.lion", "optimizer_options": "b3=1"}, "is not for --optimizer=optax"),
        ({"optimizer": "optax.lbfgs"}, "does not follow from gradients and parameters alone"),
        ({"optimizer": "math:floor"}, "^--optimizer=math:floor is no rule of the update: must be"),
        ({"optimizer": "adamx"}, "^unknown --optimizer 'adamx'; did you mean 'adamw'"),
    ],
)
def test_a_rule_that_is_none_or_takes_no_such_option_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        parameters_after(**options)


LAYERS = {"stem": {"kernel": jnp.ones((2, 2))}, "head": {"bias": jnp.ones(2)}}


def updates_of(**options):
    rule = create_optimizer(dataclasses.replace(CONFIG, schedule="constant", **options), LAYERS)
    return rule.update(LAYERS, rule.init(LAYERS), LAYERS)[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_layers_may_have_rates_of_their_own(optimizer):
    plain = updates_of(optimizer=optimizer)
    layered = updates_of(optimizer=optimizer, layer_rates="stem: 0.1; .*: 10")
    np.testing.assert_allclose(layered["stem"]["kernel"], 0.1 * plain["stem"]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(layered["head"]["bias"], 10 * plain["head"]["bias"], rtol=1e-6)


def test_rates_of_layers_and_frozen_ones_go_together():
    updates = updates_of(layer_rates="head: 2", freeze="stem")
    assert not updates["stem"]["kernel"].any()
    np.testing.assert_allclose(updates["head"]["bias"], 2 * updates_of()["head"]["bias"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_thaws_begins_without_momenta_at_the_rate_of_its_step(optimizer):
    options = {"optimizer": optimizer, "schedule": "linear", "weight_decay": 0.0}
    config = dataclasses.replace(CONFIG, **options)
    thawing = dataclasses.replace(config, freeze="stem", thaw_at=2)
    moved = {}
    for name, each in (("always", config), ("thawing", thawing)):
        rule = create_optimizer(each, LAYERS)
        state, moved[name] = rule.init(LAYERS), []
        for _ in range(4):
            updates, state = rule.update(LAYERS, state, LAYERS)
            moved[name].append(updates)
    rate = learning_rate_schedule(config)
    for step, (free, kept) in enumerate(zip(moved["always"], moved["thawing"], strict=True)):
        np.testing.assert_allclose(kept["head"]["bias"], free["head"]["bias"], rtol=1e-6)
        if step < 2:
            assert not kept["stem"]["kernel"].any()
            continue
        fresh = moved["always"][step - 2]["stem"]["kernel"] * rate(step) / rate(step - 2)
        np.testing.assert_allclose(kept["stem"]["kernel"], fresh, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stem", "cannot be read; write 'stem: 0.1; head: 10'"),
        ("(: 2", "cannot be read"),
        ("stem: -1", "'stem: -1' is no expression with its multiple"),
        ("stage9: 2", "no parameter is left for 'stage9'"),
        (".*: 2; head: 3", "no parameter is left for 'head'"),
    ],
)
def test_rates_that_cannot_be_meant_are_an_error(text, message):
    with pytest.raises(UsageError, match=message):
        updates_of(layer_rates=text)
