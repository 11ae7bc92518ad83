"""What visitors do on the exported page, in headless Chromium, from its file with the network off.

The scenarios are tests/playground/scenarios.js. They are skipped where Chromium, node or the
packages of `npm ci` are missing; CNN_JAX_BROWSER=required makes that a failure.
"""

import os
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from cnn_jax import trained
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.playground import datasets, network, page

SCENARIOS = Path(__file__).parent / "scenarios.js"
PACKAGES = Path(page.__file__).parent / "browser/node_modules"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""


def missing() -> str:
    """What the scenarios need and is not here."""
    parts = {
        "Chromium": Path(CHROMIUM).is_file(),
        "node": shutil.which("node"),
        "the packages of `npm ci` in cnn_jax/playground/browser": PACKAGES.exists(),
    }
    return ", ".join(name for name, there in parts.items() if not there)


@pytest.fixture(scope="session")
def visit():
    """visit(scenario, file) plays a scenario on a page."""
    if missing():
        if os.environ.get("CNN_JAX_BROWSER") == "required":
            pytest.fail(f"missing: {missing()}")
        pytest.skip(f"missing: {missing()}")

    def run(scenario, file):
        done = subprocess.run(
            ["node", SCENARIOS, scenario, file],
            env=os.environ | {"CHROMIUM": CHROMIUM},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The file of the page that stands alone."""
    file = tmp_path_factory.mktemp("playground") / "page.html"
    file.write_text(page.render(), encoding="utf-8")
    return file


@pytest.fixture
def lenet():
    """An untrained LeNet-5 of a run on 16x16 digits."""
    return of_model("lenet5")


def of_model(name, evaluate=lambda f, *arguments: jax.jit(f)(*arguments)):
    model = cnn_jax.create_model(name, num_classes=10)
    shape = (1, 16, 16, model.channels)
    variables = evaluate(model.init, jax.random.key(0), jnp.zeros(shape))
    moments = (0.3,) * model.channels, (0.4,) * model.channels
    names = tuple(map(str, range(10)))
    return trained.Trained(model, variables, Preprocessing(16, 16), *moments, names, {}, None)


def with_other_statistics(found):
    """The network with running moments and norms that are not those of the start."""
    random = np.random.default_rng(1)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf * random.uniform(0.5, 1.5, leaf.shape) + 0.1 if "bn" in str(path) else leaf
        ),
        found.variables,
    )
    return found._replace(variables=variables)


def pixels(model):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (8, 16, 16, model.channels), np.uint8)


QUICK = [
    "loads",
    "repeats",
    "bad_input",
    "diverges",
    "opens_a_layer",
    "own_data",
    "drops",
    "tells_what_is_old",
    "switches",
    "hides",
    "fits",
]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [*QUICK, "keyboard", "draws", "trains"])
def test_a_visitor(scenario, visit, exported):
    visit(scenario, exported)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lenet5", "tests.playground.every_layer:network"])
def test_a_run_of_ours_opens_with_its_logits(model, visit, tmp_path):
    found = with_other_statistics(of_model(model))
    images = pixels(found.model)
    names = tuple(map(str, range(10)))
    data = datasets.Embedded("noise-16", names, images, np.arange(8) % 10, 4, found.mean, found.std)
    file = tmp_path / "page.html"
    file.write_text(page.render([data], network.packed(found, data, model)), encoding="utf-8")
    visit("checkpoint", file)


def test_lenet_is_a_chain_of_the_pages_layers(lenet):
    layers = network.convert(lenet, pixels(lenet.model))
    assert " | ".join(layer.text for layer in layers) == (
        "conv 6 5x5 valid | relu | max_pool 2 | conv 16 5x5 valid | relu | max_pool 2 | "
        "dense 120 | relu | dense 84 | relu | dense 10"
    )


def test_a_network_with_shortcuts_is_refused_in_a_line():
    residual = of_model("resnet20", evaluate=jax.eval_shape)  # nothing of it is computed
    with pytest.raises(UsageError, match="resnet20") as refusal:
        network.convert(residual, pixels(residual.model))
    assert "\n" not in str(refusal.value)


def test_weights_without_a_run_are_refused(lenet):
    with pytest.raises(UsageError, match="--workdir"):
        network.embed(lenet, "lenet5")
