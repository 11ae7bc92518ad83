"""A loss from outside takes the place of the task's in the step, and of nothing else."""

import dataclasses
import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import plugins
from cnn_jax.errors import UsageError
from cnn_jax.layers import dense
from cnn_jax.models import create_model, registry
from cnn_jax.models.entry import Entry
from cnn_jax.runtime import parallel
from cnn_jax.training import config as configs
from cnn_jax.training import losses
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.losses import register_loss, replaceable
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.state import create_state
from cnn_jax.training.step import create_train_step

CONFIG = TrainConfig(model="means", steps=10, batch_size=16, learning_rate=0.5, image_size=4)


def means(scope, images, num_classes):
    return scope.child(dense, "head")(images.mean(axis=(1, 2)), num_classes)


def cross_entropy(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])


def squared(logits, batch):
    return jnp.square(logits - jax.nn.one_hot(batch["label"], 3)).sum(axis=-1).mean()


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """The module `outside` with these losses; what is registered ends with the test."""
    module = ModuleType("outside")
    module.cross_entropy, module.squared, module.number = cross_entropy, squared, 3
    monkeypatch.setitem(sys.modules, "outside", module)
    monkeypatch.setattr(registry, "MODELS", registry.MODELS | {"means": Entry(means)})
    monkeypatch.setattr(losses, "LOSSES", {})
    monkeypatch.setattr(plugins, "REGISTERED", {})


def after_a_step(over="jit", devices=1, **options):
    config = dataclasses.replace(CONFIG, **options)
    model = create_model("means", 3)
    variables = model.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32))
    optimizer = create_optimizer(config, variables["params"])
    over = parallel.PARALLEL[over](jax.devices()[:devices])
    mean, std = (0.5,) * 3, (0.25,) * 3
    step = over.compile(create_train_step(model, optimizer, config, mean, std, over.axis_name))
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (16, 4, 4, 3)).astype(np.uint8)
    batch = {"image": image, "label": random.integers(0, 3, 16).astype(np.int32)}
    state = over.put_state(create_state(model, optimizer, variables, ema=False))
    state, metrics = step(state, over.put_batch(batch))
    return over.get_state(state).params["head"]["kernel"], metrics


@pytest.mark.parametrize(
    "options",
    [{}, {"over": "jit", "devices": 4}, {"over": "pmap", "devices": 4}, {"accumulate": 4}],
)
def test_a_loss_that_is_the_tasks_makes_the_tasks_update(options):
    expected, metrics = after_a_step()
    actual, same = after_a_step(loss="outside:cross_entropy", **options)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    for name in ("loss", "accuracy", "gradient_norm"):
        np.testing.assert_allclose(same[name], metrics[name], rtol=1e-5)


def test_another_loss_is_what_is_minimised_and_logged():
    before = create_model("means", 3).init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    )
    register_loss("squared", squared)
    after, metrics = after_a_step(loss="squared", momentum=0.0, weight_decay=0.0)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16, 4, 4, 3)).astype(np.uint8)
    labels = random.integers(0, 3, 16)
    x = ((images / 255 - 0.5) / 0.25).mean(axis=(1, 2))
    kernel, bias = (np.asarray(before["params"]["head"][name]) for name in ("kernel", "bias"))
    errors = x @ kernel + bias - np.eye(3)[labels]
    assert float(metrics["loss"]) == pytest.approx((errors**2).sum(axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(after, kernel - 0.5 * 2 * x.T @ errors / 16, rtol=1e-4, atol=1e-5)


def test_auxiliary_heads_have_their_share_of_it():
    @replaceable(0.3)
    def task_loss(outputs, auxiliary, batch, config):
        return 1.0, {"loss": 1.0, "accuracy": 0.5}

    auxiliary = {"aux1": jnp.array([3.0, 5.0]), "aux2": jnp.array([10.0, 10.0])}
    config = dataclasses.replace(CONFIG, loss="plain")
    register_loss("plain", lambda outputs, batch: outputs)
    value, metrics = task_loss(jnp.array([1.0, 2.0]), auxiliary, {}, config)
    assert float(value) == pytest.approx(1.5 + 0.3 * 4 + 0.3 * 10)
    assert metrics == {"loss": value, "accuracy": 0.5}
    assert task_loss(1, auxiliary, {}, CONFIG)[0] == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outside:cros_entropy", r"^the loss outside:cros_entropy is not there"),
        ("outside:number", r"^the loss outside:number is no function f\(outputs, batch\)$"),
        ("nowhere:loss", r"^cannot import nowhere for the loss nowhere:loss"),
        ("sqared", r"^unknown loss 'sqared'; did you mean 'squared'\?$"),
    ],
)
def test_a_loss_that_is_not_there_is_told_before_the_run(name, message):
    register_loss("squared", squared)
    with pytest.raises(UsageError, match=message):
        configs.resolve(dataclasses.replace(CONFIG, loss=name), None)


def test_what_is_of_the_tasks_loss_is_refused_beside_it():
    for options in ({"label_smoothing": 0.1}, {"class_weights": "balanced"}, {"dice_weight": 1.0}):
        with pytest.raises(
            UsageError, match=r" is of the loss that --loss=squared takes the place"
        ):
            TrainConfig(loss="squared", **options)
