import pytest

from tests.models.tracing import parameters, variables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnext50_32x4d", 25_028_904),  # torchvision, ResNeXt50_32X4D_Weights: num_params
        ("resnext101_32x8d", 88_791_336),  # torchvision
        pytest.param("resnext101_64x4d", 83_455_272, marks=pytest.mark.slow),  # torchvision
        pytest.param("resnext101_32x4d", 44_177_704, marks=pytest.mark.slow),  # timm 1.0
        ("resnext29_8x64d", 34_426_698),  # the authors' models/resnext.lua; paper: 34.4M
        pytest.param(
            "resnext29_16x64d", 68_155_210, marks=pytest.mark.slow
        ),  # the same; paper: 68.1M
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_groups_double_their_width_with_each_stage():
    """Table 1: 32 groups of 4 channels, then 8, 16, 32."""
    params = variables("resnext50_32x4d")["params"]
    shapes = [params[f"stage{stage}_block2"]["conv2"]["kernel"].shape for stage in (1, 2, 3, 4)]
    assert shapes == [(3, 3, 4 * 2**i, 128 * 2**i) for i in range(4)]
