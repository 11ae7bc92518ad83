"""The builds of JAX for GPUs and TPUs, set up as on such a machine, as far as any other one goes.

By hand, -m large: two gigabytes come from the package index.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NEEDED = ("launch.sh", "pyproject.toml", "requirements", "README.md", "LICENSE")

pytestmark = pytest.mark.large


@pytest.fixture(scope="module")
def set_up(tmp_path_factory):
    """set_up(device) -> run(*arguments), Python of a new environment for the device, its stdout."""

    def make(device):
        folder = tmp_path_factory.mktemp(device) / "project"
        folder.mkdir()
        for name in (*NEEDED, "cnn_jax", "experiments"):
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, folder / name)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run(
            [folder / "launch.sh", "setup"],
            check=True,
            env=environment | {"CNN_JAX_DEVICE": device},
        )

        def run(*arguments):
            done = subprocess.run(
                [folder / ".venv/bin/python", "-P", *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        return run

    return make


CUDA = """
import json
from jax_cuda13_plugin import _versions as of
from jax_plugins import xla_cuda13

names = ("cuda_runtime", "cudnn", "cublas", "cufft", "cusolver", "cusparse")
found = {name: getattr(of, f"{name}_get_version")() for name in names}
built = {name: getattr(of, f"{name}_build_version")() for name in names}
print(json.dumps([found, built]))
"""

CONVOLUTION = """
import cnn_jax
cnn_jax.configure()
import jax, jax.numpy as jnp
model = cnn_jax.create_model("resnet20", num_classes=10)
images = jnp.ones((2, 32, 32, 3))
print(model.apply(model.init(jax.random.key(0), images), images).shape, jax.devices()[0].platform)
"""


def test_the_cuda_build_has_the_libraries_that_it_was_built_for(set_up):
    """All but the driver and the profiler's library, which asks the driver."""
    run = set_up("cuda")
    found, built = json.loads(run("-c", CUDA).splitlines()[-1])
    assert {name: found[name] >= built[name] for name in built} == dict.fromkeys(built, True)
    assert run("-c", CONVOLUTION).split(") ")[0] == "(2, 10"  # on the CPU where there is no GPU


def test_the_tpu_build_compiles_a_step_for_a_tpu(set_up, tmp_path):
    run = set_up("tpu")
    flags = ["--model=lenet5", "--image_size=32", "--batch_size=8", "--topology=v5e:2x2"]
    run("-m", "experiments.plan", *flags, f"--workdir={tmp_path}")
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["devices"], results["fits"]) == (4, True)
    assert results["topologies"][0]["device_kind"] == "TPU v5 lite"
