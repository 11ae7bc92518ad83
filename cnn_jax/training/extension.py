"""What it means for a run that it is given more steps than it began with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.training import config as configs
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.optimizer import learning_rate_schedule


def consequence(config: TrainConfig, before: Mapping[str, Any], start: int) -> str | None:
    """Return a line on the schedule of a run that has grown; None where it has not.

    Args:
      config: of the run as it goes on, resolved.
      before: the configuration in its newest checkpoint; {} where there is none.
      start: the step of that checkpoint.
    """
    steps = before.get("steps", config.steps)
    if steps >= config.steps:
        return None
    shorter = dataclasses.replace(config, steps=steps)
    grows = f"the run grows from {steps} to {config.steps} steps"
    planned, followed = (_plan(each, start) for each in (config, shorter))
    if np.array_equal(planned[:start], followed[:start]):
        return f"{grows}; so far it went as {config.steps} steps from the start would have"
    rates, sizes = zip(planned[start], followed[start - 1], strict=True)
    size = f", images of {sizes[0]:.0f} pixels after {sizes[1]:.0f}" if sizes[0] != sizes[1] else ""
    return (
        f"{grows}: the schedule is now that of {config.steps} steps, so the learning rate goes on "
        f"at {rates[0]:.3g} after {rates[1]:.3g}{size}; the first {start} steps followed that of "
        f"{steps}, and the result is not that of {config.steps} steps from the start"
    )


def _plan(config: TrainConfig, start: int) -> np.ndarray:
    """The learning rate and the side of the images at each step to the start: [start + 1, 2]."""
    at = np.arange(start + 1)
    rates = jax.vmap(learning_rate_schedule(config))(jnp.asarray(at))
    sizes, ends = zip(*configs.image_sizes(config), strict=True)
    part = np.searchsorted(ends, at, side="right").clip(max=len(sizes) - 1)
    return np.stack([np.asarray(rates, np.float64), np.asarray(sizes)[part]], axis=1)
