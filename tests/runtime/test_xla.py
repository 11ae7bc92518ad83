import os
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.runtime import xla


@pytest.fixture(autouse=True)
def restored_settings(monkeypatch, tmp_path):
    """An empty cache folder and no settings of the user's; JAX's own come back afterwards."""
    for name in ("XLA_FLAGS", "CNN_JAX_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", folder)


def test_convolutions_are_not_compiled_to_ynnpack():
    images, kernel = jnp.ones((2, 56, 56, 64)), jnp.ones((3, 3, 64, 64))
    dimensions = ("NHWC", "HWIO", "NHWC")

    @jax.jit
    def conv(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=dimensions
        )

    assert "convolution" in conv.lower(images, kernel).as_text()
    assert "__ynn_fusion" not in conv.lower(images, kernel).compile().as_text()


def test_what_is_recomputed_in_the_backward_pass_is_not_kept_on_the_cpu():
    def block(weights, x):
        return x + jnp.tanh(jnp.sin(jax.nn.relu(x @ weights)))

    def loss(all_weights, x, block):
        for weights in all_weights:
            x = block(weights, x)
        return jnp.sum(x**2)

    def temporary_bytes(block):
        shapes = [jax.ShapeDtypeStruct((8, 8), "float32")] * 16, jnp.ones((4096, 8))
        lowered = jax.jit(jax.grad(loss), static_argnums=2).lower(*shapes, block)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(jax.checkpoint(block)) < 0.6 * temporary_bytes(block)


def test_a_loop_over_what_is_computed_again_compiles():
    """The compilers of jaxlib 0.10 and 0.12 abort where a barrier stays in this small loop."""

    def loss(x):
        return jax.lax.map(jax.checkpoint(lambda x: jnp.sum(jnp.sin(x) ** 2, axis=1)), x).sum()

    x = jnp.linspace(0, 1, 24).reshape(4, 2, 3)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), jnp.sin(2 * x), rtol=1e-5)


def test_the_switches_join_the_flags_of_the_user(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    xla.configure()
    assert os.environ["XLA_FLAGS"] == " ".join(["--xla_cpu_enable_fast_math=false", *xla.CPU_FLAGS])


def test_the_users_own_setting_of_a_switch_stays(monkeypatch):
    own = "--xla_cpu_experimental_ynn_fusion_type=-individual_dot"
    monkeypatch.setenv("XLA_FLAGS", own)
    xla.configure()
    assert os.environ["XLA_FLAGS"] == " ".join([own, *xla.CPU_FLAGS[1:]])


@pytest.mark.parametrize(
    "unknown", ["--xla_no_such_flag=1", "--xla_cpu_experimental_ynn_fusion_type=-no_such_type"]
)
def test_a_flag_that_this_xla_would_abort_on_is_not_set(monkeypatch, unknown):
    monkeypatch.setattr(xla, "CPU_FLAGS", (unknown,))
    xla.configure()
    assert "XLA_FLAGS" not in os.environ


def test_the_trial_runs_once(monkeypatch):
    xla.configure()
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(xla.subprocess, "run", lambda *_, **__: pytest.fail("tried again"))
    xla.configure()
    assert os.environ["XLA_FLAGS"] == " ".join(xla.CPU_FLAGS)


def test_an_accelerators_xla_gets_no_flag_of_the_cpu(monkeypatch):
    monkeypatch.setattr(xla, "_only_cpu", lambda: False)
    xla.configure()
    assert "XLA_FLAGS" not in os.environ


def test_compilations_are_kept_in_the_users_cache(tmp_path):
    xla.configure()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache/cnn_jax/xla")


def test_the_cache_can_be_turned_off_or_moved(monkeypatch):
    monkeypatch.setenv("CNN_JAX_CACHE", "0")
    xla.configure()
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.delenv("CNN_JAX_CACHE")
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    xla.configure()
    assert jax.config.jax_compilation_cache_dir == "/elsewhere"


def test_acache_folder_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch(mode=stat.S_IRUSR)
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    xla.configure()
    assert jax.config.jax_compilation_cache_dir is None
    assert os.environ["XLA_FLAGS"] == " ".join(xla.CPU_FLAGS)
