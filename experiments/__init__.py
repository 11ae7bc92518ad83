"""One absl app a file: `python -m experiments.NAME --flags`."""
