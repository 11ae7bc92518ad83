"""The multiply-adds of what is measured, by the counter of cnn_jax.programs.flops."""

from cnn_jax.programs.flops import multiply_adds

__all__ = ["multiply_adds"]
