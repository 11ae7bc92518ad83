"""Every test runs on the CPU, which shows itself as eight devices; the default one is the first.

The annotations of ops, tasks, attacks and visualize, types and shapes, are checked in every call
that their own tests make. A process imports a module once and runs the tests of any folder, under
pytest-xdist in any order: so the checks are there for the session, and each test turns them on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jaxtyping
import numpy as np
import pytest
from absl import flags
from PIL import Image

import tests.typechecker  # noqa: F401, the import hook names it
from cnn_jax.__main__ import commands
from cnn_jax.runtime import xla

REPOSITORY = Path(__file__).parents[1]

# One process for all, as JAX takes seconds to import; what a command defines is undone behind it.
COLLECT_HELPS = """
import importlib, json, sys
from absl import flags
from experiments import app

values = flags.FLAGS
shared, helps = set(values), {}
for name in sys.argv[1:]:
    module = importlib.import_module(f"experiments.{name}")
    assert callable(module.main), f"{name} has no main"
    # those of libraries that it imports belong to their modules
    defined = {
        flag.name: flag.help
        for place, those in values.flags_by_module_dict().items()
        for flag in those
        if "." not in place or place.startswith("experiments.")
    }
    helps[name] = defined
    for flag in set(values) - shared:
        delattr(values, flag)
print(json.dumps(helps))
"""

# Functions of JAX's arrays take NumPy's as well, whose sums are scalars.
jaxtyping.Array = jax.Array | np.ndarray | np.generic
CHECKED = ("ops", "tasks", "attacks", "visualize")
jaxtyping.install_import_hook([f"cnn_jax.{name}" for name in CHECKED], "tests.typechecker.check")
jaxtyping.config.update("jaxtyping_disable", True)
xla.configure()
jax.config.update("jax_num_cpu_devices", 8)
jax.devices()  # XLA reads its flags now, before a test changes them


@pytest.fixture
def float64():
    """Compute in float64 where the arrays are."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def own_flags():
    """What the test defines of flags, directly or by importing a command, is undone behind it."""
    from experiments import app  # noqa: F401, whose flags are of all commands and stay

    before = set(flags.FLAGS)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.fixture(autouse=True)
def checked_types(request):
    """Check the annotations of the folders above in their own tests."""
    jaxtyping.config.update("jaxtyping_disable", request.path.parent.name not in CHECKED)
    yield
    jaxtyping.config.update("jaxtyping_disable", True)


@pytest.fixture
def wrong_types(checked_types):
    """Let calls with arguments of wrong types through: the library's own words are tested."""
    jaxtyping.config.update("jaxtyping_disable", True)


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


@pytest.fixture(scope="session")
def command_helps():
    """The help text of every flag of every command: command -> flag -> text."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", COLLECT_HELPS, *commands()],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The built wheel's file."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel lies in, unpacked as pip does it; its dependencies are ours."""
    folder = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, f"--target={folder}", str(wheel)], check=True)
    return folder
