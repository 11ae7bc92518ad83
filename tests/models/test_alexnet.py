import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import create_model, errors
from tests.models.tracing import activations, drawn, parameters, shapes, variables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", 62_378_344),  # the paper's layers without groups
        ("alexnet_grouped", 60_965_224),  # the paper's layers, two groups in conv2, 4 and 5
        ("alexnet_torchvision", 61_100_840),  # torchvision, AlexNet_Weights: num_params
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_parameters_by_layer():
    params = variables("alexnet")["params"]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(params[name])) for name in params]
    assert dict(zip(params, counts, strict=True)) == {
        "conv1": 34_944,
        "conv2": 614_656,
        "conv3": 885_120,
        "conv4": 1_327_488,
        "conv5": 884_992,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "head": 4_097_000,
    }


def test_the_sizes_of_the_lectures_slide():
    """CONV1 to FC8 for images of 227x227x3, in the slide's order."""
    sizes = {path: size for path, size in shapes("alexnet").items() if "relu" not in path}
    assert list(sizes.items())[:10] == [
        ("conv1", (55, 55, 96)),
        ("pool1", (27, 27, 96)),
        ("norm1", (27, 27, 96)),
        ("conv2", (27, 27, 256)),
        ("pool2", (13, 13, 256)),
        ("norm2", (13, 13, 256)),
        ("conv3", (13, 13, 384)),
        ("conv4", (13, 13, 384)),
        ("conv5", (13, 13, 256)),
        ("pool5", (6, 6, 256)),
    ]
    assert [sizes["fc6"], sizes["fc7"], sizes["head"]] == [(4096,), (4096,), (1000,)]


def test_the_order_of_norm_and_pool_can_be_chosen():
    slide = list(shapes("alexnet", norm_first=False))
    paper = list(shapes("alexnet", norm_first=True))
    assert slide.index("pool1") < slide.index("norm1")
    assert paper.index("norm1") < paper.index("pool1")


def test_the_second_gpu_sees_half_of_the_channels():
    """Section 3.5: with two groups, filter 128 of conv2 reads channels 48 to 95 alone."""
    model = create_model("alexnet_grouped")
    params = drawn(variables("alexnet_grouped", 67))
    images = np.random.default_rng(1).standard_normal((1, 67, 67, 3), "float32")
    blinded = jax.tree.map(jnp.asarray, params)
    kernel = blinded["params"]["conv1"]["kernel"]
    bias = blinded["params"]["conv1"]["bias"]
    # the normalisation reads two channels across the border
    blinded["params"]["conv1"] = {"kernel": kernel.at[..., :46].set(0), "bias": bias.at[:46].set(0)}
    (seen,) = activations(model, params, images, "conv2")
    (less,) = activations(model, blinded, images, "conv2")
    np.testing.assert_array_equal(seen[..., 128:], less[..., 128:])
    assert np.all(np.any(seen[..., :128] != less[..., :128], axis=(0, 1, 2)))


def test_initialisation():
    """Section 5: deviation 0.01; biases of one in conv2, 4, 5 and the hidden dense layers."""
    model = create_model("alexnet")
    images = jax.ShapeDtypeStruct((1, 67, 67, 3), "float32")

    @jax.jit
    def initial():
        params = model.init(jax.random.key(0), images)["params"]
        return {name: layer["bias"] for name, layer in params.items()}, params["conv2"]["kernel"]

    biases, kernel = initial()
    assert np.std(kernel) == pytest.approx(0.01, rel=0.01)
    ones = [name for name, bias in biases.items() if np.all(bias == 1)]
    zeros = [name for name, bias in biases.items() if np.all(bias == 0)]
    assert sorted(ones) == ["conv2", "conv4", "conv5", "fc6", "fc7"]
    assert sorted(zeros) == ["conv1", "conv3", "head"]


def test_images_that_are_too_small_are_refused():
    with pytest.raises(errors.UsageError):
        variables("alexnet", 32)
