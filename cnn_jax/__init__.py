"""Convolutional networks as pure functions: train, evaluate, attack and look into them."""

from cnn_jax.errors import UsageError
from cnn_jax.models import Model, create_model, model_names
from cnn_jax.weights import load_weights, save_weights

__all__ = [
    "Model",
    "UsageError",
    "create_model",
    "load_weights",
    "model_names",
    "save_weights",
]
