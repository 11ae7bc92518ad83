"""The training step of a configuration as shapes alone: what a plan compiles, without data."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from cnn_jax.data.detection import USUAL_ROOM
from cnn_jax.data.localization import MOST
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import find
from cnn_jax.programs import plan as programs
from cnn_jax.runtime.parallel import choose
from cnn_jax.training import config as configs
from cnn_jax.training import memory
from cnn_jax.training.config import RECOMPUTED, TrainConfig
from cnn_jax.training.detector import settings_of
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.state import create_state
from cnn_jax.training.step import create_train_step
from cnn_jax.training.task import TASKS, check_options

_STEPS = 1000  # any number: the schedule's constants take no memory and no time


class PlannedStep(NamedTuple):
    """A step and what it takes: state and batch are shapes, the batch's of all devices together."""

    step: Callable[[PyTree, PyTree], Any]
    state: PyTree
    batch: dict[str, jax.ShapeDtypeStruct]
    config: TrainConfig


def plan_step(
    config: TrainConfig,
    gather: Callable[[PyTree], PyTree] = lambda parameters: parameters,
    platform: str | None = None,
) -> PlannedStep:
    """Return the step that training as configured makes, under jit over any number of devices.

    What a data set decides is the model's own unless it is given: classes and side of the images.
    A detector's images have room for five objects then, and masks if it finds masks.

    Args:
      gather: that of the devices, of a state that is spread over them, see parallel.over_shards.
      platform: that of the devices; by default of those that are present.

    Raises:
      UsageError: an unknown model, a detector that is given its regions, or options that do not
        fit the task.
    """
    entry = find(config.model)
    task = TASKS[entry.task]
    check_options(config, task)
    if task.name != "detection":  # of the other tasks no data decide anything
        config = task.resolve(config, None, None)
    elif settings_of(config).anchor_sizes:
        config = dataclasses.replace(config, max_objects=config.max_objects or USUAL_ROOM)
    else:
        raise UsageError(f"--model={config.model} has no plan, as it needs proposals of regions")
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
        model, optimizer, config, entry.mean, entry.std, task=task, gather=gather, platform=platform
    )
    if task.name == "detection":
        batch = _objects(config)
    else:
        batch = _batch(config, entry.task, channels)
    return PlannedStep(step, programs.shapes_of(state), batch, config)


def lowered_step(config: TrainConfig, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
    """Return that step, lowered over these devices."""
    gather = choose(config.parallel, config.shard_state, devices).gather
    planned = plan_step(config, gather, devices[0].platform)
    return programs.lower_step(
        planned.step, planned.state, planned.batch, devices, config.shard_state
    )


def fitted_step(
    config: TrainConfig, devices: Sequence[jax.Device], cache: Path | None
) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the configuration whose step fits into its memory_limit, and that step's account.

    Args:
      cache: see programs.plan.compile_for_account.

    Raises:
      UsageError: no step fits.
    """

    def account_of(config: TrainConfig) -> dict[str, Any]:
        return programs.compile_for_account(lowered_step(config, devices), cache)

    state = plan_step(config).state
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    with_norms = memory.takes_batch_statistics(config, variables)
    config, found = memory.fitted(config, account_of, len(devices), with_norms)
    print(memory.line(config, found, with_norms), flush=True)
    return config, found


def what_would_fit(
    config: TrainConfig,
    devices: Sequence[jax.Device],
    refused: programs.DoesNotFit,
    cache: Path | None,
) -> str:
    """Return in words with which batch, and with which rematerialisation, a step would fit.

    It is compiled again with each, until one fits.

    Args:
      refused: as it was compiled.
      cache: see programs.plan.compile_for_account.
    """
    said = ""
    if refused.needed:
        state = plan_step(config).state
        held = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
        held /= len(devices) if config.shard_state else 1
        most = programs.largest_batch(
            held, refused.needed, refused.memory, config.batch_size, len(devices)
        )
        said += f"; about --batch_size={most} would fit" if most else "; not one example fits"
    if any(getattr(config, name) for name in RECOMPUTED):
        return said
    for name in RECOMPUTED:
        print(f"compiling with --{name}", flush=True)
        try:
            lowered = lowered_step(dataclasses.replace(config, **{name: True}), devices)
            found = programs.compile_for_account(lowered, cache)
        except programs.DoesNotFit:
            continue
        return f"{said}; with --{name} it fits, at {found['peak_bytes'] / 2**30:.2f} GiB"
    return f"{said}; it does not fit with --{RECOMPUTED[-1]} either"


def _objects(config: TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of data.detection's batches, in pixels and objects as configured."""
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    count, side, room = config.batch_size, config.image_size, config.max_objects
    batch = {
        "image": shape((count, side, side, 3), dtype=jnp.uint8),
        "size": shape((count, 2)),
        "original_size": shape((count, 2)),
        "boxes": shape((count, room, 4), dtype=jnp.float32),
        "labels": shape((count, room)),
        "valid": shape((count, room), dtype=jnp.bool_),
        "difficult": shape((count, room), dtype=jnp.bool_),
    }
    if settings_of(config).mask_layers:
        batch["instances"] = shape((count, side, side, -(-room // 8)), dtype=jnp.uint8)
    return batch


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
