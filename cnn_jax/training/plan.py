"""The training step of a configuration as shapes alone: what a plan compiles, without data."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from cnn_jax.data.localization import MOST
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import find
from cnn_jax.programs.plan import shapes_of
from cnn_jax.training import config as configs
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.state import create_state
from cnn_jax.training.step import create_train_step
from cnn_jax.training.task import CLASSIFICATION, LOCALIZATION, SEGMENTATION, check_options

_TASKS = {task.name: task for task in (CLASSIFICATION, LOCALIZATION, SEGMENTATION)}
_STEPS = 1000  # any number: the schedule's constants take no memory and no time


class PlannedStep(NamedTuple):
    """A step and what it takes: state and batch are shapes, the batch's of all devices together."""

    step: Callable[[PyTree, PyTree], Any]
    state: PyTree
    batch: dict[str, jax.ShapeDtypeStruct]
    config: TrainConfig


def plan_step(
    config: TrainConfig, gather: Callable[[PyTree], PyTree] = lambda parameters: parameters
) -> PlannedStep:
    """Return the step that training as configured makes, under jit over any number of devices.

    What a data set decides is the model's own unless it is given: classes and side of the images.

    Args:
      gather: that of the devices, of a state that is spread over them, see parallel.over_shards.

    Raises:
      UsageError: an unknown model, one of a task without a plan, or options that do not fit it.
    """
    entry = find(config.model)
    if entry.task not in _TASKS:
        known = ", ".join(sorted(_TASKS))
        raise UsageError(f"--model={config.model} has no plan; give a network of {known}")
    task = _TASKS[entry.task]
    check_options(config, task)
    config = task.resolve(config, None, None)  # of these tasks no data decide anything
    size = config.image_size or entry.image_size
    config = dataclasses.replace(
        config,
        num_classes=config.num_classes or entry.num_classes,
        image_size=size,
        steps=config.steps or _STEPS,
        epochs=None,
        warmup_epochs=None,
    )
    model, channels = configs.build_model(config), len(entry.mean)
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    optimizer = create_optimizer(config, variables["params"])
    state = jax.eval_shape(
        partial(create_state, model, optimizer, ema=config.ema_decay is not None), variables
    )
    step = create_train_step(
        model, optimizer, config, entry.mean, entry.std, task=task, gather=gather
    )
    return PlannedStep(step, shapes_of(state), _batch(config, entry.task, channels), config)


def _batch(config: TrainConfig, task: str, channels: int) -> dict[str, jax.ShapeDtypeStruct]:
    shape = jax.ShapeDtypeStruct
    count, side = config.batch_size, config.image_size
    batch = {"image": shape((count, side, side, channels), jnp.uint8)}
    if task == "segmentation":
        return batch | {"mask": shape((count, side, side), jnp.uint8)}
    batch["label"] = shape((count,), jnp.int32)
    if task == "localization":
        batch["boxes"] = shape((count, MOST, 4), jnp.float32)
    if config.mixup or config.cutmix:
        batch["mixed_label"] = shape((count,), jnp.int32)
        batch["mix"] = shape((count,), jnp.float32)
    return batch
