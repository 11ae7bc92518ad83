"""Published weights: read without running them, converted, and written."""

from cnn_jax.weights.files import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]
