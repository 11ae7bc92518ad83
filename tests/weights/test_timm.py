"""timm's files of networks that torchvision names otherwise."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from cnn_jax import create_model, load_weights
from cnn_jax.models.registry import MODELS
from cnn_jax.weights import convert
from tests.models.tracing import variables
from tests.references import parity

STORED = dict(np.load(Path(__file__).parents[1] / "references" / "timm.npz"))
ROWS = [
    pytest.param("mobilenet_v2"),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("convnext_tiny", "efficientnet_b0", "regnet_x_800mf", "regnet_y_400mf")
    ),
    pytest.param("vgg11_bn", marks=pytest.mark.large),
]


def timms_tensors(name):
    """Return timm's state dict, filled by the rule, counters included."""
    shapes = json.loads(str(STORED[f"{name}/tensors"]))
    return {
        key: np.array(0) if key.endswith("num_batches_tracked") else parity.fill(key, tuple(shape))
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize("name", ROWS)
def test_timms_weights_give_timms_logits(name):
    size = int(STORED[f"{name}/size"])
    template = variables(name, num_classes=parity.NUM_CLASSES)
    tensors, note = convert.as_published(MODELS[name], timms_tensors(name), template)
    assert MODELS[name].timm.model in note
    filled = convert.from_published(MODELS[name], tensors, template)
    with jax.enable_x64(True):
        model = create_model(name, parity.NUM_CLASSES)
        logits = np.asarray(jax.jit(model.apply)(filled, parity.images(size)))
    theirs = STORED[f"{name}/logits"]
    assert np.abs(logits - theirs).max() < 1e-11 * np.abs(theirs).max()


def test_a_file_of_timms_is_loaded_and_told(tmp_path, capsys):
    name, path = "mobilenet_v2", tmp_path / "model.safetensors"
    tensors = {key: x.astype("float32") for key, x in timms_tensors(name).items()}
    safetensors.numpy.save_file(tensors, path)
    loaded = load_weights(name, path, parity.NUM_CLASSES, replace_head=False)
    kernel = tensors["blocks.1.0.conv_pwl.weight"]
    np.testing.assert_array_equal(
        loaded["params"]["stage2_block1"]["project"]["kernel"], kernel.transpose(2, 3, 1, 0)
    )
    assert capsys.readouterr().err.endswith(
        "model.safetensors: read as timm's mobilenetv2_100, whose names it has\n"
    )
    # and with another head
    head = load_weights(name, path, 3)["params"]["head"]["kernel"]
    assert head.shape == (1280, 3)


def test_a_tensor_of_other_numbers_is_not_reshaped():
    template = variables("mobilenet_v2", num_classes=parity.NUM_CLASSES)
    tensors = timms_tensors("mobilenet_v2")
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"].reshape(32, 3, 1, 9)
    tensors, _ = convert.as_published(MODELS["mobilenet_v2"], tensors, template)
    assert tensors["features.0.0.weight"].shape == (32, 3, 1, 9)


@pytest.mark.parametrize("name", sorted(name for name, entry in MODELS.items() if entry.timm))
@pytest.mark.slow
def test_each_variable_has_a_name_of_its_own_at_timm(name):
    names = [convert.timm_name(MODELS[name], path) for path in flatten_dict(variables(name))]
    assert len(names) == len(set(names))
