import numpy as np
import pytest

from cnn_jax import create_model
from cnn_jax.models.registry import MODELS
from tests.models.tracing import activations, drawn, parameters, shapes, variables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # counted by building timm 1.0's networks of these names
        ("seresnet18", 11_779_624),
        ("seresnet34", 21_960_416),
        ("seresnet50", 28_088_024),
        pytest.param("seresnet101", 49_326_872, marks=pytest.mark.slow),
        pytest.param("seresnet152", 66_821_848, marks=pytest.mark.slow),
        ("seresnext50_32x4d", 27_559_896),
        pytest.param("seresnext101_32x4d", 48_955_416, marks=pytest.mark.slow),
        pytest.param("senet154", 115_088_984, marks=pytest.mark.slow),
        ("legacy_seresnet50", 28_088_024),
        pytest.param("legacy_seresnext50_32x4d", 27_559_896, marks=pytest.mark.slow),
        pytest.param("legacy_senet154", 115_088_984, marks=pytest.mark.slow),
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_excitation():
    """Equations 2 to 4: s = sigmoid(W2 relu(W1 mean(x))), every channel scaled by its s."""
    model = create_model("seresnet50", stage_sizes=(1, 1, 1, 1))
    params = drawn(variables("seresnet50", 32, stage_sizes=(1, 1, 1, 1)))
    images = np.random.default_rng(1).standard_normal((2, 32, 32, 3), "float32")
    x, y = activations(model, params, images, "stage1_block1/conv3", "stage1_block1/se")
    fc1, fc2 = (params["params"]["stage1_block1"]["se"][name] for name in ("fc1", "fc2"))
    assert fc1["kernel"].shape == (1, 1, 256, 16)  # reduced sixteen times
    hidden = np.maximum(x.mean((1, 2)) @ fc1["kernel"][0, 0] + fc1["bias"], 0)
    scale = 1 / (1 + np.exp(-(hidden @ fc2["kernel"][0, 0] + fc2["bias"])))
    np.testing.assert_allclose(y, x * scale[:, None, None], rtol=1e-4, atol=1e-5)


def test_senet154():
    """Appendix: a stem of three convolutions, narrow first 1x1, 64 groups, 3x3 shortcuts."""
    params = variables("senet154")["params"]
    stem = [params[f"stem{i}"]["kernel"].shape for i in (1, 2, 3)]
    assert stem == [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 128)]
    block = params["stage2_block1"]
    assert block["conv1"]["kernel"].shape == (1, 1, 256, 256)
    assert block["conv2"]["kernel"].shape == (3, 3, 256 // 64, 512)
    assert block["shortcut"]["kernel"].shape == (3, 3, 256, 512)
    assert params["stage1_block1"]["shortcut"]["kernel"].shape == (1, 1, 128, 256)


@pytest.mark.parametrize("name", ["seresnet50", "legacy_seresnet50"])
def test_both_poolings_after_the_stem_give_the_same_size(name):
    assert shapes(name)["stem_pool"][:2] == (56, 56)


@pytest.mark.parametrize(
    ("name", "path", "module"),
    [
        ("seresnet50", "stage1_block2/se/fc1", "layer1.1.se.fc1"),
        ("senet154", "stem3/bn", "bn1"),
        ("legacy_senet154", "stem3/bn", "layer0.bn3"),
        ("legacy_seresnet50", "stem", "layer0.conv1"),
        ("legacy_seresnet50", "stage1_block2/se/fc1", "layer1.1.se_module.fc1"),
    ],
)
def test_published_names(name, path, module):
    assert MODELS[name].published_name(path) == module
