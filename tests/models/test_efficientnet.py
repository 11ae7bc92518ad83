"""EfficientNet and EfficientNetV2."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax.core import init

from cnn_jax.models import efficientnet
from tests.models.tracing import parameters, shapes

# torchvision, EfficientNet_B*_Weights: num_params; timm's ports have the same
COUNTS = {
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "b5": 30_389_784,
    "b6": 43_040_704,
    "b7": 66_347_960,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(
            pytest.param(
                f"efficientnet_{size}", count, marks=[pytest.mark.slow] * (size not in ("b0", "b1"))
            )
            for size, count in COUNTS.items()
        ),
        # the others are the same stages again
        *((f"tf_efficientnet_{size}", COUNTS[size]) for size in ("b0", "b3")),
        # timm, results-imagenet.csv: 4.65, 5.42, 6.09, 8.20 and 13.01 million
        ("tf_efficientnet_lite0", 4_652_008),
        ("tf_efficientnet_lite1", 5_416_680),
        ("tf_efficientnet_lite2", 6_092_072),
        ("tf_efficientnet_lite3", 8_197_096),
        ("tf_efficientnet_lite4", 13_006_568),
        ("efficientnet_lite0", 4_652_008),
        # torchvision, num_params
        ("efficientnet_v2_s", 21_458_488),
        pytest.param("efficientnet_v2_m", 54_139_356, marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_l", 118_515_272, marks=pytest.mark.slow),
    ],
)
def test_parameters(name, expected):
    assert parameters(name, image_size=32) == expected


def test_timm_and_torchvision_scale_alike():
    for size in COUNTS:
        ours = efficientnet.MODELS[f"efficientnet_{size}"].function.keywords
        timm = efficientnet.MODELS[f"tf_efficientnet_{size}"].function.keywords
        assert all(ours[key] == timm[key] for key in ("stages", "stem", "last", "dropout_rate"))


def test_sizes_are_the_table():
    found = shapes("efficientnet_b0")  # 2019, table 1
    expected = {"stem": (112, 32), "stage1_block1": (112, 16), "stage2_block2": (56, 24)}
    expected |= {"stage3_block2": (28, 40), "stage4_block3": (14, 80), "stage5_block3": (14, 112)}
    expected |= {"stage6_block4": (7, 192), "stage7_block1": (7, 320), "last": (7, 1280)}
    assert {path: (found[path][0], found[path][2]) for path in expected} == expected


def test_fused_blocks_have_no_depthwise_convolution_and_no_excitation():
    found = shapes("efficientnet_v2_s", 64)
    assert "stage1_block1/conv" in found  # expansion 1: one convolution
    assert "stage2_block1/expand" in found
    assert not any("stage3" in path and "/se" in path for path in found)
    assert "stage4_block1/se/silu" in found


def test_excitation_squeezes_to_a_quarter_of_the_blocks_input():
    block = efficientnet.mbconv(24, 6, features=40)
    x = jax.ShapeDtypeStruct((1, 8, 8, 24), "float32")
    _, variables = jax.eval_shape(init(block), jax.random.key(0), x)
    assert variables["params"]["se"]["fc1"]["kernel"].shape == (1, 1, 144, 6)


def test_stochastic_depth_grows_linearly_with_depth(monkeypatch):
    rates = []

    def spy(channels, expansion, *, drop_rate, **settings):
        rates.append(drop_rate)
        return efficientnet.mbconv(channels, expansion, drop_rate=drop_rate, **settings)

    stages = [efficientnet.Stage(spy, 1, 3, 1, 8, 2), efficientnet.Stage(spy, 1, 3, 2, 8, 2)]
    network = functools.partial(
        efficientnet.efficientnet,
        num_classes=2,
        stages=stages,
        stem=8,
        last=8,
        dropout_rate=0.0,
        stochastic_depth_rate=0.4,
    )
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), "float32")
    jax.eval_shape(init(network), jax.random.key(0), images)
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_resolutions_are_the_published_ones():
    # torchvision's and timm's preprocessing; B2's differ
    assert efficientnet.MODELS["efficientnet_b2"].image_size == 288
    assert efficientnet.MODELS["tf_efficientnet_b2"].image_size == 260
    assert efficientnet.MODELS["efficientnet_v2_l"].mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("classes", "bound"), [(4000, 4000**-0.5), (1000, 1000**-0.5), (8, 1000**-0.5)]
)
def test_a_head_of_few_classes_begins_as_small_as_the_published_one(classes, bound):
    drawn = efficientnet.head_init(jax.random.key(0), (1280, classes), jnp.float32)
    assert 0.99 * bound < abs(drawn).max() <= bound
