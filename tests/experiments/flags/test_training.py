"""What flags make of a recipe."""

from types import SimpleNamespace

import pytest

from cnn_jax.errors import UsageError
from experiments.flags.training import config_from_flags


class Flags:
    """absl's flags: a recipe, and those that were given."""

    def __init__(self, recipe, **given):
        self.recipe, self.given = recipe, given

    def __getitem__(self, name):
        return SimpleNamespace(value=self.given.get(name), present=name in self.given)


def test_steps_that_are_given_drop_the_recipes_epochs():
    config = config_from_flags(Flags("unet_shapes", steps=7, warmup_steps=2))
    assert (config.steps, config.epochs) == (7, None)
    assert (config.warmup_steps, config.warmup_epochs) == (2, None)
    assert config.optimizer_options == "iterations=3"


def test_another_optimizer_drops_the_options_of_the_recipes():
    assert config_from_flags(Flags("unet_shapes", optimizer="adamw")).optimizer_options == ""
    same = config_from_flags(Flags("unet_shapes", optimizer="muon"))
    assert same.optimizer_options == "iterations=3"
    own = Flags("unet_shapes", optimizer="adamw", optimizer_options="b2=0.9")
    assert config_from_flags(own).optimizer_options == "b2=0.9"


def test_a_flag_that_does_nothing_is_refused_and_a_recipes_option_is_not():
    with pytest.raises(UsageError, match=r"^--pad_mode does nothing without --crop=pad"):
        config_from_flags(Flags("unet_shapes", crop="none", pad_mode="reflect"))
    assert config_from_flags(Flags("unet_shapes", crop="none")).pad == 8
