"""Tasks: their losses, targets and metrics."""
