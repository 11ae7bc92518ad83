from functools import partial

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import create_model
from cnn_jax.models import resnet
from tests.models.tracing import parameters, shapes, variables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", 11_689_512),  # torchvision, ResNet18_Weights.IMAGENET1K_V1: num_params
        ("resnet34", 21_797_672),  # torchvision, ResNet34_Weights
        ("resnet50", 25_557_032),  # torchvision, ResNet50_Weights
        ("resnet101", 44_549_160),  # torchvision, ResNet101_Weights
        ("resnet152", 60_192_808),  # torchvision, ResNet152_Weights
        # the stride's place changes no parameter
        ("resnet18_v1", 11_689_512),
        ("resnet34_v1", 21_797_672),
        ("resnet50_v1", 25_557_032),
        ("resnet101_v1", 44_549_160),
        ("resnet152_v1", 60_192_808),
        # He et al. 2015, table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M; to the unit by hand below
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_parameters_by_hand(depth):
    """Section 4.2: 2n convolutions at each of the widths 16, 32, 64, and their norms."""
    n = (depth - 2) // 6
    total = 9 * 3 * 16 + 2 * 16  # the first convolution
    for before, width in ((16, 16), (16, 32), (32, 64)):
        total += 9 * before * width + (2 * n - 1) * 9 * width**2 + 2 * n * 2 * width
    total += 64 * 10 + 10
    assert parameters(f"resnet{depth}") == total


def test_stages_halve_the_size_and_double_the_width():
    """He et al. 2015, table 1."""
    outputs = shapes("resnet50")
    assert outputs["stem"] == (112, 112, 64)
    assert outputs["stem_pool"] == (56, 56, 64)
    assert outputs["stage1_block3"] == (56, 56, 256)
    assert outputs["stage2_block4"] == (28, 28, 512)
    assert outputs["stage3_block6"] == (14, 14, 1024)
    assert outputs["stage4_block3"] == (7, 7, 2048)


def test_cifar_stages():
    """Section 4.2: maps of 32, 16 and 8 pixels with 16, 32 and 64 filters."""
    outputs = shapes("resnet20")
    assert [outputs[f"stage{i}_block3"] for i in (1, 2, 3)] == [
        (32, 32, 16),
        (16, 16, 32),
        (8, 8, 64),
    ]


def test_the_papers_form_strides_in_the_first_convolution_of_a_bottleneck():
    path = "stage2_block1/conv1"
    assert shapes("resnet50")[path] == (56, 56, 128)
    assert shapes("resnet50_v1")[path] == (28, 28, 128)


def test_cifar_shortcuts_have_no_parameters_and_pad_with_zeros():
    assert "shortcut" not in variables("resnet20")["params"]["stage2_block1"]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 2)))
    out = resnet.zero_padding(None, x, 4, 2)
    np.testing.assert_array_equal(out[..., 1:3], x[:, ::2, ::2])
    np.testing.assert_array_equal(out[..., [0, 3]], 0)


def test_zero_init_residual_makes_every_block_its_shortcut():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 4)), jnp.float32)
    block = partial(resnet.basic_block, features=4, zero_init_residual=True)
    out, _ = jax.jit(flax.core.init(block))(jax.random.key(0), x)
    np.testing.assert_array_equal(out, np.maximum(x, 0))


@pytest.mark.parametrize(("name", "last"), [("resnet18", "conv2"), ("resnet50", "conv3")])
def test_zero_init_residual_is_an_option_of_the_network(name, last):
    model = create_model(name, zero_init_residual=True)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def scales(key):
        block = model.init(key, images)["params"]["stage2_block1"]
        return block["conv1"]["bn"]["scale"], block[last]["bn"]["scale"]

    first, final = jax.jit(scales)(jax.random.key(0))
    assert (first == 1).all()
    assert (final == 0).all()


def test_published_names_are_torchvisions():
    names = {
        "stem": "conv1",
        "stem/bn": "bn1",
        "stage1_block2/conv1": "layer1.1.conv1",
        "stage1_block2/conv3/bn": "layer1.1.bn3",
        "stage4_block1/shortcut": "layer4.0.downsample.0",
        "stage4_block1/shortcut/bn": "layer4.0.downsample.1",
        "head": "fc",
    }
    assert {path: resnet.torchvision_name(path) for path in names} == names


@pytest.mark.slow
def test_blocks_that_are_recomputed_by_groups_change_no_gradient_and_no_statistic(float64):
    """Of five blocks a stage: those that are alike in one loop, in groups of two and one."""
    model = create_model("resnet32", 10)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)))
    variables = model.init(jax.random.key(0), images)

    @partial(jax.jit, static_argnums=1)
    def slopes(params, remat):
        def loss(params):
            settings = {"train": True, "mutable": ["batch_stats"], "remat": remat}
            logits, updates = model.apply({**variables, "params": params}, images, **settings)
            return jnp.sum(jax.nn.log_softmax(logits) ** 2), updates

        return jax.grad(loss, has_aux=True)(params)

    variables = jax.tree.map(lambda x: x.astype(jnp.float64), variables)
    params = variables["params"]
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    jax.tree.map(close, slopes(params, "deep"), slopes(params, False))
