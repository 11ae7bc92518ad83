"""Losses from outside, which take the place of a task's own."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax import errors, plugins
from cnn_jax.errors import UsageError

Loss = Callable[[Any, Mapping[str, Array]], Float[Array, "..."]]

LOSSES: dict[str, Loss] = {}


def register_loss(name: str, loss: Loss) -> None:
    """Let --loss know a loss by this name.

    Args:
      loss: f(outputs, batch) -> the loss of each example [n], or its mean over them, of the
        network's outputs (logits [n, classes] of a classifier) and of what the batch holds: "image"
        uint8 [n, h, w, c], "label" int [n] of classifiers, "mask" int [n, h, w] of segmentation;
        where images are mixed also "mixed_label" [n] and "mix" [n], the share of "label".

    Raises:
      UsageError: the name is taken, or this is no function.
    """
    plugins.register(LOSSES, "loss", name, _checked(name, loss))


def find(name: str) -> Loss:
    """Return the loss that was registered by this name, or has it as its address.

    Raises:
      UsageError: there is none.
    """
    if plugins.is_address(name):
        return _checked(name, plugins.find(name, "loss"))
    if name not in LOSSES:
        raise errors.unknown("loss", name, [*LOSSES, "package.module:function"])
    return LOSSES[name]


def _checked(name: str, loss: Any) -> Loss:
    if not callable(loss):
        raise UsageError(f"the loss {name} is no function f(outputs, batch)")
    return loss


def replaceable(auxiliary_weight: float = 0.0) -> Callable[[Callable], Callable]:
    """Return a decorator of a task's loss, whose value becomes that of config.loss if there is one.

    The task's other metrics stay.

    Args:
      auxiliary_weight: the share of the loss of each auxiliary head.
    """

    def decorate(task_loss):
        @functools.wraps(task_loss)
        def loss(outputs, auxiliary, batch, config, *rest):
            value, metrics = task_loss(outputs, auxiliary, batch, config, *rest)
            if config.loss is None:
                return value, metrics
            own = find(config.loss)
            value = jnp.mean(own(outputs, batch))
            for each in auxiliary.values():
                value += auxiliary_weight * jnp.mean(own(each, batch))
            return value, metrics | {"loss": value}

        return loss

    return decorate
