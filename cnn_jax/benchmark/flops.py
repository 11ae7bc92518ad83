"""The multiply-adds of what is measured, by the counter of cnn_jax.flops."""

from cnn_jax.flops import multiply_adds

__all__ = ["multiply_adds"]
