"""One trained network serves all tests of the experiments that look into one."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.recipes import recipe


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """The folder of a run of two steps; a test that writes into a run's folder takes a copy."""
    folder = tmp_path_factory.mktemp("trained")
    options = recipe("digits") | {
        "model": "lenet5",
        "model_options": "filters=(4,), neurons=(8,)",
        "steps": 2,
        "epochs": None,
        "data_dir": str(folder / "data"),
    }
    loop.train(TrainConfig(**options), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(trained_once, tmp_path_factory):
    """The module's own copy of the folder of that run."""
    return shutil.copytree(trained_once, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def two_photographs(tmp_path_factory):
    """A folder of two photographs of other sizes than any network's: 60x40 and 30x70."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for name, size in (("wide.png", (40, 60)), ("high.png", (70, 30))):
        Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(folder / name)
    return folder
