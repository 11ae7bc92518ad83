"""Every test runs on the CPU, which shows itself as eight devices; the default one is the first."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

from cnn_jax.runtime import xla

xla.configure()
jax.config.update("jax_num_cpu_devices", 8)
jax.devices()  # XLA reads its flags now, before a test changes them


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_end_with_their_module():
    """XLA aborts when the compiled programs of a long process exhaust its memory mappings."""
    yield
    jax.clear_caches()
