"""The configuration: derived values, recipes and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.models import model_names
from cnn_jax.training import config as configs
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.recipes import RECIPES, recipe


def dataset(examples=1000, shape=(8, 8, 1), classes=10):
    names = tuple(map(str, range(classes)))
    return Dataset("d", "train", range(examples), classes, names, shape, (0.5,), (0.5,))


def test_it_survives_json():
    config = TrainConfig(steps=3, decay_at=(0.1, 0.2), model_options="zero_init_residual=True")
    assert configs.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_an_unknown_option_is_refused():
    with pytest.raises(UsageError, match="'batch_size'"):
        configs.from_dict({"batchsize": 3})


def test_epochs_become_steps():
    config = configs.resolve(TrainConfig(epochs=2, batch_size=100, warmup_epochs=0.5), dataset())
    assert (config.steps, config.epochs) == (20, None)
    assert (config.warmup_steps, config.warmup_epochs) == (5, None)


def test_images_grow_in_equal_stages_to_their_size():
    config = TrainConfig(steps=10, image_size=128, start_image_size=64, image_size_stages=3)
    assert configs.image_sizes(config) == [(64, 3), (96, 7), (128, 10)]
    constant = dataclasses.replace(config, start_image_size=None)
    assert configs.image_sizes(constant) == [(128, 10)]


def test_images_do_not_shrink():
    with pytest.raises(UsageError, match="--start_image_size=9 to 8 pixels"):
        configs.resolve(TrainConfig(steps=1, start_image_size=9), dataset())


def test_resolving_twice_changes_nothing():
    once = configs.resolve(TrainConfig(epochs=2, batch_size=100), dataset())
    assert configs.resolve(once, dataset()) == once


@pytest.mark.parametrize(
    ("shape", "model", "size"),
    [
        ((8, 8, 1), "resnet20", 8),
        ((None, None, 3), "resnet20", 32),
        ((None, None, 3), "resnet50", 224),
    ],
)
def test_the_image_size_is_the_data_sets_else_the_models(shape, model, size):
    config = configs.resolve(TrainConfig(steps=1, model=model), dataset(shape=shape))
    assert config.image_size == config.eval_image_size == config.eval_resize == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1, "epochs": 1}, "both --steps and --epochs"),
        ({"optimizer": "sgdd"}, "did you mean 'sgd'"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"label_smoothing": 1.5}, "--label_smoothing=1.5"),
        ({"decay_at": (30, 60)}, "--decay_at"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**options)


def test_too_few_classes_are_refused():
    with pytest.raises(UsageError, match="has 10 classes"):
        configs.resolve(TrainConfig(steps=1, num_classes=5), dataset())


def test_model_options_are_literals_only():
    assert configs.literal_options("a=1, b=(2, 3)") == {"a": 1, "b": (2, 3)}
    assert configs.literal_options("") == {}
    for text in ("a", "a=b", "a=__import__('os')", "**{}", "a=1)("):
        with pytest.raises(UsageError, match="model_options"):
            configs.literal_options(text)


def test_the_head_has_the_classes_of_the_data_set():
    config = configs.resolve(TrainConfig(steps=1), dataset(classes=7))
    assert configs.build_model(config).num_classes == 7


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_configuration_of_a_known_model(name):
    config = TrainConfig(**recipe(name))
    assert config.model in model_names()
    assert np.isfinite(config.learning_rate)
    configs.refuse_idle(config, recipe(name))


def test_the_published_schedules_fall_where_they_say():
    cifar = configs.resolve(TrainConfig(**recipe("cifar_resnet")), dataset(50_000, (32, 32, 3)))
    assert [share * cifar.steps for share in cifar.decay_at] == [32_000, 48_000]
    imagenet = configs.resolve(
        TrainConfig(**recipe("resnet50")), dataset(1_281_167, (None, None, 3), 1000)
    )
    epochs = [round(share * imagenet.steps) * 256 / 1_281_167 for share in imagenet.decay_at]
    assert epochs == pytest.approx([30, 60], abs=0.01)


def test_an_unknown_recipe_suggests():
    with pytest.raises(UsageError, match="'digits'"):
        recipe("digit")


def test_options_that_do_nothing_to_a_task_are_refused():
    config = TrainConfig(label_smoothing=0.1, steps=1)
    with pytest.raises(UsageError, match=r"^--label_smoothing is not for masks; leave it out$"):
        configs.refuse(config, ("mixup", "label_smoothing"), "masks")
    configs.refuse(config, ("mixup",), "masks")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"pad": 8}, "--crop=pad"),
        ({"final_learning_rate": 0.1, "schedule": "step"}, "--schedule=cosine or linear"),
        ({"image_size_stages": 3}, "--start_image_size"),
        ({"adversary_steps": 3, "adversary": "fast"}, "--adversary=pgd or trades"),
    ],
)
def test_options_that_do_nothing_beside_the_others_are_refused(options, wanted):
    message = f"^--{next(iter(options))} does nothing without {wanted}; give both or neither$"
    with pytest.raises(UsageError, match=message):
        configs.refuse_idle(TrainConfig(**options), options)
    configs.refuse_idle(TrainConfig(**options), ())  # as a recipe has them that a flag overrides
    configs.refuse_idle(TrainConfig(pad=8, crop="pad"), ("pad", "crop"))
