"""RegNet X and Y."""

import pytest

from cnn_jax.models.regnet import stages
from tests.models.tracing import parameters, shapes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # torchvision, RegNet_*_Weights: num_params
        ("regnet_x_400mf", 5_495_976),
        pytest.param("regnet_x_800mf", 7_259_656, marks=pytest.mark.slow),
        pytest.param("regnet_x_1_6gf", 9_190_136, marks=pytest.mark.slow),
        pytest.param("regnet_x_3_2gf", 15_296_552, marks=pytest.mark.slow),
        pytest.param("regnet_x_8gf", 39_572_648, marks=pytest.mark.slow),
        pytest.param("regnet_x_16gf", 54_278_536, marks=pytest.mark.slow),
        ("regnet_x_32gf", 107_811_560),
        ("regnet_y_400mf", 4_344_144),
        pytest.param("regnet_y_800mf", 6_432_512, marks=pytest.mark.slow),
        pytest.param("regnet_y_1_6gf", 11_202_430, marks=pytest.mark.slow),
        pytest.param("regnet_y_3_2gf", 19_436_338, marks=pytest.mark.slow),
        pytest.param("regnet_y_8gf", 39_381_472, marks=pytest.mark.slow),
        pytest.param("regnet_y_16gf", 83_590_140, marks=pytest.mark.slow),
        pytest.param("regnet_y_32gf", 145_046_770, marks=pytest.mark.slow),
        ("regnet_y_128gf", 644_812_894),
    ],
)
def test_parameters(name, expected):
    assert parameters(name, image_size=32) == expected


@pytest.mark.parametrize(
    ("settings", "widths", "blocks"),
    [
        # the paper's tables of the X and Y models: 400MF, 3.2GF (X) and 800MF (Y)
        ((22, 24, 24.48, 2.54, 16), [32, 64, 160, 400], [1, 2, 7, 12]),
        ((25, 88, 26.31, 2.25, 48), [96, 192, 432, 1008], [2, 6, 15, 2]),
        ((14, 56, 38.84, 2.4, 16), [64, 144, 320, 784], [1, 3, 8, 2]),
    ],
)
def test_stages_are_the_papers(settings, widths, blocks):
    table = stages(*settings)
    assert [width for width, _, _ in table] == widths
    assert [count for _, count, _ in table] == blocks


def test_groups_are_no_wider_than_the_stage_and_divide_it():
    for width, _, group in stages(17, 192, 76.82, 2.19, 56):
        assert group == 56
        assert width % group == 0
    assert stages(4, 8, 8.0, 2.0, 16)[0] == (8, 1, 8)


def test_sizes():
    found = shapes("regnet_x_400mf")
    expected = {"stem": (112, 112, 32), "stage1_block1": (56, 56, 32), "pool": (400,)}
    expected |= {"stage3_block7": (14, 14, 160), "stage4_block12": (7, 7, 400)}
    assert {path: found[path] for path in expected} == expected


def test_y_is_x_with_squeeze_and_excitation():
    x, y = shapes("regnet_x_400mf", 64), shapes("regnet_y_400mf", 64)
    assert not any("/se" in path for path in x)
    # a quarter of the block's input: 48 channels come in, 104 are excited
    assert y["stage2_block1/se/fc1"] == (1, 1, 12)
    assert y["stage2_block1/se"][-1] == 104
