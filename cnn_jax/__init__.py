"""Convolutional networks as pure functions: train, evaluate, attack and look into them.

Call `cnn_jax.configure()` before JAX's first computation, in a notebook or a program of your own:
it chooses XLA's fast convolutions on a CPU, which take a third of the time of the default ones, and
keeps compiled programs between processes. The commands do it by themselves.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cnn_jax.errors import UsageError

if TYPE_CHECKING:
    from cnn_jax.attacks.registry import register_attack
    from cnn_jax.data.datasets import register_dataset
    from cnn_jax.models import Model, create_model, model_names, register_model
    from cnn_jax.runtime.xla import configure
    from cnn_jax.training.losses import register_loss
    from cnn_jax.training.optimizer import register_optimizer
    from cnn_jax.training.recipes import register_recipe
    from cnn_jax.training.task import register_task
    from cnn_jax.visualize.methods import register_method
    from cnn_jax.weights import load_weights, save_weights
    from cnn_jax.weights.pretrained import load_pretrained, pretrained

__all__ = [
    "Model",
    "UsageError",
    "configure",
    "create_model",
    "load_pretrained",
    "load_weights",
    "model_names",
    "pretrained",
    "register_attack",
    "register_dataset",
    "register_loss",
    "register_method",
    "register_model",
    "register_optimizer",
    "register_recipe",
    "register_task",
    "save_weights",
]

# imported when first asked for: JAX and Flax take a second, which a command's --help need not wait
_PLACES = {
    "Model": "cnn_jax.models",
    "configure": "cnn_jax.runtime.xla",
    "create_model": "cnn_jax.models",
    "load_pretrained": "cnn_jax.weights.pretrained",
    "load_weights": "cnn_jax.weights",
    "model_names": "cnn_jax.models",
    "pretrained": "cnn_jax.weights.pretrained",
    "register_attack": "cnn_jax.attacks.registry",
    "register_dataset": "cnn_jax.data.datasets",
    "register_loss": "cnn_jax.training.losses",
    "register_method": "cnn_jax.visualize.methods",
    "register_model": "cnn_jax.models",
    "register_optimizer": "cnn_jax.training.optimizer",
    "register_recipe": "cnn_jax.training.recipes",
    "register_task": "cnn_jax.training.task",
    "save_weights": "cnn_jax.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
