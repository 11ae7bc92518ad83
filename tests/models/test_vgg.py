import pytest

from cnn_jax.models.registry import MODELS
from tests.models.tracing import parameters, shapes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg11", 132_863_336),  # torchvision, VGG11_Weights: num_params, and so on
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("vgg11_bn", 132_868_840),
        ("vgg13_bn", 133_053_736),
        ("vgg16_bn", 138_365_992),
        ("vgg19_bn", 143_678_248),
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_the_sizes_of_the_lectures_table():
    """224x224x64 twice, pooled to 112x112x64, and so on down to 7x7x512, then 4096, 4096, 1000."""
    sizes = shapes("vgg16")
    convolutions = [size for path, size in sizes.items() if path.startswith("conv")]
    pools = [size for path, size in sizes.items() if path[:4] == "pool" and path != "pool"]
    assert convolutions == (
        [(224, 224, 64)] * 2
        + [(112, 112, 128)] * 2
        + [(56, 56, 256)] * 3
        + [(28, 28, 512)] * 3
        + [(14, 14, 512)] * 3
    )
    assert pools == [(112, 112, 64), (56, 56, 128), (28, 28, 256), (14, 14, 512), (7, 7, 512)]
    assert [sizes["fc6"], sizes["fc7"], sizes["head"]] == [(4096,), (4096,), (1000,)]


@pytest.mark.parametrize(
    ("name", "path", "module"),
    [
        ("vgg16", "conv1_2", "features.2"),
        ("vgg16", "conv5_3", "features.28"),
        ("vgg19", "conv5_4", "features.34"),
        ("vgg16_bn", "conv1_2", "features.3"),
        ("vgg16_bn", "bn5_3", "features.41"),
        ("vgg16", "fc7", "classifier.3"),
    ],
)
def test_published_names(name, path, module):
    """The numbers that torchvision's models print."""
    assert MODELS[name].published_name(path) == module
