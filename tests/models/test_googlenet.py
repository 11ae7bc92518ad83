from functools import partial
from pathlib import Path

import flax.core
import jax
import numpy as np
import pytest

from cnn_jax import create_model
from cnn_jax.models.entry import Entry
from cnn_jax.models.googlenet import MODULES, Inception, inception, naive_inception
from cnn_jax.weights import convert
from tests.models.tracing import activations, drawn, parameters, shapes, variables
from tests.references import parity

REFERENCES = Path(__file__).parents[1] / "references"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("googlenet", {}, 6_998_552),  # counted from table 1 of the paper, with biases
        ("googlenet", {"aux_heads": True}, 13_378_280),  # the same and section 5's classifiers
        ("googlenet_torchvision", {}, 6_624_904),  # torchvision, GoogLeNet_Weights: num_params
        ("googlenet_torchvision", {"aux_heads": True}, 13_004_888),  # torchvision, aux_logits=True
    ],
)
def test_parameters(name, options, expected):
    assert parameters(name, **options) == expected


def test_the_sizes_of_table_1():
    sizes = shapes("googlenet")
    assert [sizes[layer] for layer in ("conv1", "pool1", "conv2", "pool2")] == [
        (112, 112, 64),
        (56, 56, 64),
        (56, 56, 192),
        (28, 28, 192),
    ]
    modules = {"3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832}
    modules |= {"5a": 832, "5b": 1024}
    size = {"3": 28, "4": 14, "5": 7}
    assert {name: sizes[f"inception{name}"] for name in MODULES} == {
        name: (size[name[0]], size[name[0]], depth) for name, depth in modules.items()
    }


@pytest.mark.parametrize(
    ("module", "depth", "multiplications"),
    [
        (partial(naive_inception, f1x1=128, f3x3=192, f5x5=96), 672, 854_196_224),
        (partial(inception, filters=Inception(128, 64, 192, 64, 96, 64)), 480, 271_351_808),
    ],
    ids=["naive", "reduced"],
)
def test_the_lectures_example_at_28x28x256(module, depth, multiplications):
    """The naive module costs three times as much; the often quoted 358M counts a branch twice."""
    x = jax.ShapeDtypeStruct((1, 28, 28, 256), "float32")
    output, variables = jax.eval_shape(flax.core.init(module), jax.random.key(0), x)
    kernels = [leaf.size for leaf in jax.tree.leaves(variables["params"]) if len(leaf.shape) == 4]
    assert output.shape == (1, 28, 28, depth)
    # every kernel is applied at every position
    assert 28 * 28 * sum(kernels) == multiplications


def test_the_naive_module_equals_the_reference():
    """Against PyTorch's layers, with the same weights: tests/references/make_googlenet.py."""
    module = partial(naive_inception, f1x1=4, f3x3=5, f5x5=6)
    with np.load(REFERENCES / "googlenet.npz") as stored, jax.enable_x64(True):
        expected = stored["naive_inception/logits"].transpose(0, 2, 3, 1)
        images = parity.images(int(stored["naive_inception/size"]))
        _, template = jax.eval_shape(flax.core.init(module), jax.random.key(0), images)
        entry = Entry(module)
        names = convert.to_published(
            entry, jax.tree.map(lambda leaf: np.zeros(leaf.shape), template)
        )
        tensors = {name: parity.fill(name, zeros.shape) for name, zeros in names.items()}
        variables = convert.from_published(entry, tensors, template)
        found = flax.core.apply(module)(variables, images)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_torchvision"])
def test_auxiliary_logits_leave_through_the_tap(name):
    sizes = shapes(name, num_classes=7, aux_heads=True)
    assert sizes["aux1"] == sizes["aux2"] == (7,)
    assert sizes["aux1/pool"] == (4, 4, 512)
    assert sizes["aux2/pool"] == (4, 4, 528)
    without = shapes(name, num_classes=7)
    assert not any(path.startswith("aux") for path in without)


def test_transform_input_undoes_imagenets_normalisation():
    """Images normalised by ImageNet's numbers come in as those scaled to -1..1."""
    pixels = np.random.default_rng(1).uniform(size=(1, 64, 64, 3)).astype("float32")
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    params = drawn(variables("googlenet_torchvision", 64))
    transforming = create_model("googlenet_torchvision", transform_input=True)
    plain = create_model("googlenet_torchvision")
    (found,) = activations(transforming, params, (pixels - mean) / std, "conv1/conv")
    (expected,) = activations(plain, params, 2 * pixels - 1, "conv1/conv")
    np.testing.assert_allclose(found, expected, atol=1e-4)
