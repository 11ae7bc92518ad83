"""A flag for each option of TrainConfig, and the configuration they and a recipe give."""

import dataclasses
import sys
import types
import typing
from typing import Any

from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.training.config import OF_TASKS_LOSS, TrainConfig, is_outside, refuse_idle
from cnn_jax.training.recipes import RECIPES, recipe
from cnn_jax.training.repeat import options_of_run, override, went_on
from cnn_jax.weights import pretrained

# Flags of a command's own that are among the options of its runs.
_ELSEWHERE = ("max_objects",)


def define() -> None:
    """Define the flags, grouped by the options' sections."""
    flags.DEFINE_string(
        "recipe",
        None,
        f"Published settings to start from, which other flags override: {', '.join(RECIPES)}.",
        module_name="Recipe",
    )
    flags.DEFINE_string(
        "config",
        None,
        "Earlier run to repeat, the path of its config.json or its folder, whose options take the "
        "place of a recipe's.",
        module_name="Recipe",
    )
    hints = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        if field.name == "plugin":  # of every command, see app
            continue
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(each for each in typing.get_args(kind) if each is not type(None))
        default, section, text = (
            field.default,
            field.metadata["section"],
            field.metadata["help"],
        )
        choices = field.metadata["choices"]
        if choices and not field.metadata["open"]:
            flags.DEFINE_enum(field.name, default, choices, text, module_name=section)
        elif kind is bool:
            flags.DEFINE_boolean(field.name, default, text, module_name=section)
        elif kind is int:
            flags.DEFINE_integer(field.name, default, text, module_name=section)
        elif kind is float:
            flags.DEFINE_float(field.name, default, text, module_name=section)
        elif kind is str:
            text += f" One of {', '.join(choices)}." if choices else ""
            flags.DEFINE_string(field.name, default, text, module_name=section)
        else:
            _define_floats(field.name, default, text, section)


def _define_floats(name: str, default: tuple[float, ...], text: str, section: str) -> None:
    """Define a flag of comma-separated numbers."""

    class Parser(flags.ArgumentParser):
        syntactic_help = "comma-separated numbers"

        def parse(self, argument):
            if isinstance(argument, tuple):
                return argument
            return tuple(float(part) for part in argument.split(",") if part.strip())

        def flag_type(self):
            return "comma separated list of numbers"

    serializer = flags.CsvListSerializer(",")
    flags.DEFINE(Parser(), name, default, text, serializer=serializer, module_name=section)


def config_from_flags(values: flags.FlagValues) -> TrainConfig:
    """Return the defaults, overridden by the recipe, overridden by the flags that were given.

    With --config an earlier run's options take the recipe's place.

    A --steps that is given drops the recipe's epochs, and so on; likewise with the warm-up. Another
    --optimizer drops the options of the recipe's, one from outside its kind of momentum too,
    and --loss what is of the task's loss.

    Raises:
      UsageError: a flag that does nothing beside the others, or a --config of no use.
    """
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    given = {name: values[name].value for name in names if values[name].present}
    if values["config"].value is not None:
        config = TrainConfig(**override(_repeated(values), given))
        refuse_idle(config, given)
        return config
    base = recipe(values.recipe) if values.recipe else {}
    for one, other in (("steps", "epochs"), ("warmup_steps", "warmup_epochs")):
        if one in given:
            base.pop(other, None)
        elif other in given:
            base.pop(one, None)
    if given.get("optimizer", base.get("optimizer")) != base.get("optimizer"):
        base.pop("optimizer_options", None)
        if is_outside(given.get("optimizer", "sgd")):
            base.pop("momentum", None)
            base.pop("nesterov", None)
    for name in OF_TASKS_LOSS if "loss" in given else ():
        base.pop(name, None)
    if given.get("init_from") == "pretrained" and "model" not in base:
        given.setdefault("model", pretrained.EMBEDDED[0])
    config = TrainConfig(**{**base, **given})
    refuse_idle(config, given)
    return config


def _repeated(values: flags.FlagValues) -> dict[str, Any]:
    """Return the options of the run that --config names."""
    path = values["config"].value
    if values["recipe"].present:
        raise UsageError("both --config and --recipe are given; give one of them")
    options = options_of_run(path, others=[name for name in _ELSEWHERE if name in values])
    for name in _ELSEWHERE:
        if name in options:
            values.set_default(name, options.pop(name))
    if (before := went_on(path)) and not values["steps"].present:
        print(
            f"the run in {path} was given more steps after {', '.join(map(str, before))}; this one "
            f"makes {options['steps']} at once, by the schedule of so many",
            file=sys.stderr,
        )
    return options
