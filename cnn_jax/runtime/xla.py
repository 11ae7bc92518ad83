"""The settings of XLA that make this project fast, made before JAX's first computation."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib

# The default hands convolutions to YNNPACK, which takes up to three times as long.
_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"

# Else barriers are gone before the program is put in order, and what is to be computed again late,
# to save memory, is computed early and kept. A barrier that stays aborts the compiler where it
# makes a function of a small loop, which is left out too. From jaxlib 0.12 on neither is needed.
_BARRIERS = "--xla_disable_hlo_passes=cse_barrier_expander,small-while-loop-hoisting"

_OLDER_XLA = tuple(map(int, jaxlib.__version__.split(".")[:2])) < (0, 12)
CPU_FLAGS = (_CONVOLUTIONS, _BARRIERS) if _OLDER_XLA else (_CONVOLUTIONS,)

# Reading the debug options parses XLA_FLAGS, and XLA aborts on one that it does not know.
_PARSE_FLAGS = """
from jaxlib import xla_client
xla_client.CompileOptions().executable_build_options.debug_options
"""


def configure() -> None:
    """Chooses the settings of the CPU's compiler and turns the persistent compilation cache on.

    Call it before JAX's first computation; XLA reads its flags once, and a later call has no
    effect on them. What the user has set stays: XLA_FLAGS is added to, never replaced, and
    JAX_COMPILATION_CACHE_DIR is the cache if given. Else the cache is `cnn_jax/xla` in
    $XDG_CACHE_HOME or ~/.cache; CNN_JAX_CACHE=0 turns it off.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, of XLA's C++ logging
    folder = cache_folder()
    if folder and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
        # JAX keeps what takes a second; the hundreds of small programs that draw a network's
        # weights take longer together
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for flag in CPU_FLAGS if _only_cpu() else ():
        flags = os.environ.get("XLA_FLAGS", "")
        if flag.partition("=")[0] not in flags and _accepts(flag, folder):
            os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def cache_folder() -> Path | None:
    """Return the project's cache folder; None if it is turned off or cannot be written."""
    if os.environ.get("CNN_JAX_CACHE") == "0":
        return None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cnn_jax"
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None


def _only_cpu() -> bool:
    """Whether no other XLA than jaxlib's own, an accelerator's plugin, will read XLA_FLAGS."""
    platforms = jax.config.jax_platforms
    if platforms:
        return platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None


def _accepts(flag: str, folder: Path | None) -> bool:
    """Whether this jaxlib parses the flag, tried in a process of its own (half a second, once)."""
    accepted = folder and folder / f"jaxlib {jaxlib.__version__} accepts {flag}"
    if accepted and accepted.exists():
        return True
    trial = [sys.executable, "-c", _PARSE_FLAGS]
    environment = os.environ | {"XLA_FLAGS": flag}
    if subprocess.run(trial, env=environment, capture_output=True).returncode != 0:
        return False
    if accepted:
        accepted.touch()
    return True
