"""The models: a file a family, and the registry."""

from cnn_jax.models.registry import Model, create_model, model_names, register_model

__all__ = ["Model", "create_model", "model_names", "register_model"]
