"""Adversarial attacks on any f(images) -> logits, images in 0..1."""
