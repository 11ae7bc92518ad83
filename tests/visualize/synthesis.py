"""What PyTorch and Lucent computed, see tests/references/make_synthesis.py."""

from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parents[1] / "references" / "synthesis.npz"


def reference(case):
    """Return the arrays of one case by name, float64."""
    with np.load(REFERENCE) as arrays:
        return {
            name.partition("/")[2]: arrays[name] for name in arrays if name.startswith(case + "/")
        }
