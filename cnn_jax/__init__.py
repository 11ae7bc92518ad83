"""Convolutional networks as pure functions: train, evaluate, attack and look into them.

Call `cnn_jax.configure()` before JAX's first computation, in a notebook or a program of your own:
it chooses XLA's fast convolutions on a CPU, which take a third of the time of the default ones, and
keeps compiled programs between processes. The commands do it by themselves.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cnn_jax.errors import UsageError

if TYPE_CHECKING:
    from cnn_jax.models import Model, create_model, model_names
    from cnn_jax.runtime.xla import configure
    from cnn_jax.weights import load_weights, save_weights

__all__ = [
    "Model",
    "UsageError",
    "configure",
    "create_model",
    "load_weights",
    "model_names",
    "save_weights",
]

# imported when first asked for: JAX and Flax take a second, which a command's --help need not wait
_PLACES = {
    "Model": "cnn_jax.models",
    "configure": "cnn_jax.runtime.xla",
    "create_model": "cnn_jax.models",
    "load_weights": "cnn_jax.weights",
    "model_names": "cnn_jax.models",
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
