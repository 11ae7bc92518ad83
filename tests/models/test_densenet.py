import numpy as np
import pytest

from cnn_jax import create_model
from cnn_jax.models.registry import MODELS
from tests.models.tracing import activations, drawn, parameters, variables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("densenet121", 7_978_856),  # torchvision, DenseNet121_Weights: num_params
        pytest.param("densenet169", 14_149_480, marks=pytest.mark.slow),  # torchvision
        pytest.param("densenet201", 20_013_928, marks=pytest.mark.slow),  # torchvision
        ("densenet161", 28_681_000),  # torchvision
        pytest.param(
            "densenet264", 33_337_704, marks=pytest.mark.slow
        ),  # torchvision's DenseNet with the paper's (6, 12, 64, 48)
        # the authors' models/densenet.lua; in table 2 1.0M, 7.0M, 27.2M, 0.8M, 15.3M, 25.6M
        ("densenet_40_12", 1_019_722),
        ("densenet_100_12", 6_979_642),
        pytest.param("densenet_100_24", 27_249_082, marks=pytest.mark.slow),
        ("densenet_bc_100_12", 769_162),
        pytest.param("densenet_bc_250_24", 15_324_406, marks=pytest.mark.slow),
        pytest.param("densenet_bc_190_40", 25_624_430, marks=pytest.mark.slow),
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_every_layer_sees_all_before_it():
    """Section 3, equation 2: x_l = H_l([x_0, ..., x_(l-1)])."""
    model = create_model("densenet_40_12", depth=10)
    images = np.random.default_rng(1).standard_normal((1, 8, 8, 3), "float32")
    params = drawn(variables("densenet_40_12", 8, depth=10))
    first, second, seen = activations(
        model, params, images, "stem", "block1_layer1", "block1_layer2/bn1"
    )
    norm = params["params"]["block1_layer2"]["bn1"] | params["batch_stats"]["block1_layer2"]["bn1"]
    before = np.concatenate([first, second], axis=-1)
    expected = (before - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("densenet_100_12", 400), ("densenet_bc_100_12", 108), ("densenet121", 128)],
)
def test_transitions_compress_in_the_bc_form(name, channels):
    """Plain: 16 + 32 * 12 stay; BC: 24 + 16 * 12 and 64 + 6 * 32 are halved."""
    kernel = variables(name)["params"]["transition1"]["conv"]["kernel"]
    assert kernel.shape[-1] == channels


def test_older_files_have_a_dot_more():
    entry = MODELS["densenet121"]
    today = "features.denseblock1.denselayer2.norm1.weight"
    assert entry.current_name("features.denseblock1.denselayer2.norm.1.weight") == today
    assert entry.current_name(today) == today
    assert entry.published_name("block1_layer2/bn1") + ".weight" == today
