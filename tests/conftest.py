"""Every test runs on the CPU, which shows itself as eight devices; the default one is the first."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax.runtime import xla

xla.configure()
jax.config.update("jax_num_cpu_devices", 8)
jax.devices()  # XLA reads its flags now, before a test changes them


@pytest.fixture
def float64():
    """Compute in float64 where the arrays are."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_end_with_their_module():
    """XLA aborts when the compiled programs of a long process exhaust its memory mappings."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def draw_pets():
    """draw_pets(folder, name=colour, ...) makes a folder of images of its colour a class."""

    def draw(folder, count=10, **colours):
        random = np.random.default_rng(0)
        for name, colour in colours.items():
            (folder / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (8, 8, 3)) + 190 * np.array(colour)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
        return f"folder:{folder}"

    return draw
