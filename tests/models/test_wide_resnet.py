import jax
import numpy as np
import pytest

from cnn_jax import create_model, errors
from tests.models.tracing import activations, drawn, parameters, variables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the authors' pytorch/resnet.py; paper: 0.6M, 8.9M, 11.0M, 17.2M, 36.5M, 52.5M
        ("wrn_40_1", 563_930),
        ("wrn_40_4", 8_949_210),
        ("wrn_16_8", 10_961_370),
        ("wrn_22_8", 17_158_106),
        ("wrn_28_10", 36_479_194),
        ("wrn_28_10_dropout", 36_479_194),
        ("wrn_28_12", 52_517_850),
        ("preact_resnet164", 1_703_258),  # the authors' models/resnet-pre-act.lua; paper: 1.7M
        ("wide_resnet50_2", 68_883_240),  # torchvision, Wide_ResNet50_2_Weights: num_params
        ("wide_resnet101_2", 126_886_696),  # torchvision
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("wrn_40_1", [(3, 3, 16, 16), (3, 3, 16, 16)]),  # a: basic
        ("preact_resnet164", [(1, 1, 64, 16), (3, 3, 16, 16), (1, 1, 16, 64)]),  # b: bottleneck
        ("wrn_28_10", [(3, 3, 160, 160), (3, 3, 160, 160)]),  # c: basic-wide; d has the same
    ],
)
def test_the_blocks_of_figure_1(name, kernels):
    block = variables(name)["params"]["stage1_block2"]
    found = [block[layer]["kernel"].shape for layer in block if layer.startswith("conv")]
    assert found == kernels


def test_wide_dropout_draws_between_the_convolutions():
    """Figure 1d: in training the second convolution sees zeros, as many as the rate says."""
    model = create_model("wrn_28_10_dropout", depth=10, widen=1)
    images = np.random.default_rng(1).standard_normal((4, 16, 16, 3), "float32")
    params = drawn(variables("wrn_28_10_dropout", 16, depth=10, widen=1))
    block = "stage1_block1"
    before, after = activations(
        model,
        params,
        images,
        f"{block}/relu2",
        f"{block}/dropout",
        train=True,
        rngs={"dropout": jax.random.key(0)},
    )
    dropped = (after == 0) & (before > 0)
    assert abs(dropped.sum() / (before > 0).sum() - 0.3) < 0.02
    np.testing.assert_allclose(after[~dropped], before[~dropped] / 0.7, rtol=1e-5)


def test_preactivation():
    """A shortcut with weights sees the activated input, one without the input itself."""
    model = create_model("wrn_16_8", widen=2)
    images = np.random.default_rng(1).standard_normal((1, 8, 8, 3), "float32")
    params = drawn(variables("wrn_16_8", 8, widen=2))
    activated, branch, first, second_branch, second = activations(
        model,
        params,
        images,
        "stage2_block1/relu1",
        "stage2_block1/conv2",
        "stage2_block1",
        "stage2_block2/conv2",
        "stage2_block2",
    )
    shortcut = (
        activated[:, ::2, ::2] @ params["params"]["stage2_block1"]["shortcut"]["kernel"][0, 0]
    )
    np.testing.assert_allclose(first, shortcut + branch, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second, first + second_branch, rtol=1e-4, atol=1e-5)


def test_an_impossible_depth_is_refused():
    with pytest.raises(errors.UsageError, match="depth 27"):
        variables("wrn_28_10", depth=27)
