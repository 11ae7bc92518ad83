"""Devices, XLA's settings, and loops that are fast on a platform."""
