"""The operations are tested in float64."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def torch_cases():
    """What tests/references/make_ops.py kept: {case: {array's name: array, "settings": dict}}."""
    cases: dict[str, dict] = {}
    with np.load(Path(__file__).parents[1] / "references" / "ops.npz") as arrays:
        for path, array in arrays.items():
            case, _, name = path.rpartition("/")
            cases.setdefault(case, {})[name] = (
                json.loads(str(array)) if name == "settings" else array
            )
    return cases
