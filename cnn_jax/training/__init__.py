"""Training: state, step, loop, parallelism, checkpoints."""
