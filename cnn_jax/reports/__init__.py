"""Pages of a run: their frame, their figures, a module a topic."""
