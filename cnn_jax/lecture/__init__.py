"""The lecture's worked examples."""
