import pytest

from tests.models.tracing import parameters, shapes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zfnet", 62_357_608),  # counted from figure 3 of the paper
        ("zfnet_512_1024_512", 107_627_624),  # the same with the filters of table 2's last rows
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_the_sizes_of_figure_3():
    sizes = shapes("zfnet")
    layers = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7"]
    assert [sizes[layer] for layer in layers] == [
        (110, 110, 96),
        (55, 55, 96),
        (26, 26, 256),
        (13, 13, 256),
        (13, 13, 384),
        (13, 13, 384),
        (13, 13, 256),
        (6, 6, 256),
        (4096,),
        (4096,),
    ]
