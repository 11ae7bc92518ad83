"""The counts and receptive fields of networks, against published and hand-computed numbers."""

from functools import partial

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import layers, ops
from cnn_jax.errors import UsageError
from cnn_jax.models import googlenet
from cnn_jax.models.published import COMPARISON_SLIDE, VGG16_SLIDE
from cnn_jax.programs import layer_table


def analyse(function, shape, *leaves):
    """Analyse f(x, *leaves), the leaves being parameters of these shapes."""
    structs = [jax.ShapeDtypeStruct(each, np.float32) for each in leaves]
    x = jax.ShapeDtypeStruct(shape, np.float32)
    return layer_table.analyse(lambda variables, x: function(x, *variables), structs, x)


def analyse_layer(function, shape):
    """Analyse a scope function on a map [h, w, c]."""
    x = jax.ShapeDtypeStruct((1, *shape), np.float32)
    init = flax.core.lazy_init(function)
    variables = jax.eval_shape(lambda: init(jax.random.key(0), x))
    return layer_table.analyse(flax.core.apply(function), variables, x)


# --- the reference's table: parameters, 10^9 multiply-accumulates at native size ----------------

# counted on torchvision's and timm's implementations; the first AlexNet by hand, layer by layer
TABLE = {
    "alexnet": (62_378_344, 1.135),
    "alexnet_grouped": (60_965_224, 0.724),
    "alexnet_torchvision": (61_100_840, 0.714),
    "vgg11": (132_863_336, 7.609),
    "vgg16": (138_357_544, 15.470),
    "resnet18": (11_689_512, 1.814),
    "resnet20": (269_722, 0.041),
    "resnet50": (25_557_032, 4.089),
    "mobilenet_v2": (3_504_872, 0.301),
}
LONGER_TABLE = {
    "vgg13": (133_047_848, 11.308),
    "vgg19": (143_667_240, 19.632),
    "googlenet": (6_998_552, 1.583),
    "googlenet_torchvision": (6_624_904, 1.498),
    "resnet34": (21_797_672, 3.664),
    "resnet50_v1": (25_557_032, 3.858),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "wide_resnet50_2": (68_883_240, 11.398),
    "wide_resnet101_2": (126_886_696, 22.753),
    "resnext50_32x4d": (25_028_904, 4.230),
    "resnext101_32x8d": (88_791_336, 16.414),
    "densenet121": (7_978_856, 2.834),
    "densenet169": (14_149_480, 3.360),
    "densenet201": (20_013_928, 4.291),
    "densenet161": (28_681_000, 7.728),
    "mobilenet_v1": (4_231_976, 0.569),
    "mobilenet_v3_large": (5_483_032, 0.217),
    "mobilenet_v3_small": (2_542_856, 0.057),
    "efficientnet_b0": (5_288_548, 0.386),
    "efficientnet_b4": (19_341_616, 4.394),
    "convnext_large": (197_767_336, 34.361),
    "regnet_x_8gf": (39_572_648, 7.995),
    "regnet_y_8gf": (39_381_472, 8.473),
    "regnet_y_128gf": (644_812_894, 127.518),
    # without the resizing of the logits
    "fcn_resnet50": (35_322_218, 152.717),
    "deeplabv3_resnet50": (42_004_074, 178.722),
}


def check_row(name, params, gmacs):
    net = layer_table.analyse_model(name)
    assert net.parameters == params
    assert sum(row.parameters for row in net.layers) == params
    assert sum(row.macs for row in net.layers) == net.macs
    assert round(net.macs / 1e9, 3) == gmacs


@pytest.mark.parametrize("name", TABLE)
def test_parameters_and_macs_equal_the_reference(name):
    check_row(name, *TABLE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LONGER_TABLE)
def test_parameters_and_macs_equal_the_reference_in_the_larger_networks(name):
    check_row(name, *LONGER_TABLE[name])


# --- the lecture's table of VGG-16 ---------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg16():
    return layer_table.analyse_model("vgg16")


def test_vgg16_has_the_rows_of_the_slide(vgg16):
    rows = [row for row in vgg16.layers if row.kind != "other"]
    assert len(rows) == len(VGG16_SLIDE) == 22
    for row, slide in zip(rows, VGG16_SLIDE, strict=True):
        shape = row.output if len(row.output) == 3 else (1, 1, *row.output)
        assert "x".join(map(str, shape)) == slide.size
        assert row.weights == slide.parameters
        unit = {"k": 1e3, "M": 1e6}.get(slide.memory[-1], 1)
        assert row.activations == pytest.approx(float(slide.memory.rstrip("kM")) * unit, rel=5e-3)


def test_vgg16_sums_are_those_of_the_slides_own_rows(vgg16):
    assert vgg16.activations == 15_237_608
    assert sum(row.bytes for row in vgg16.layers if row.kind != "other") == 60_950_432
    assert vgg16.activations_of_weighted == 13_556_712
    assert vgg16.activations_of_all == 28_793_320
    assert sum(row.weights for row in vgg16.layers) == 138_344_128
    assert vgg16.parameter_bytes == 4 * 138_357_544


def test_the_slides_layers_are_those_of_the_longest_path():
    for name in ("alexnet", "vgg16", "googlenet", "resnet50"):
        assert layer_table.analyse_model(name).depth == COMPARISON_SLIDE[name].layers
    assert layer_table.analyse_model("resnet50").weighted_layers == 54  # with four shortcuts


def test_the_naive_inception_module_costs_three_times_the_reduced_one():
    naive = partial(googlenet.naive_inception, f1x1=128, f3x3=192, f5x5=96)
    reduced = partial(googlenet.inception, filters=googlenet.Inception(128, 64, 192, 64, 96, 64))
    naive, reduced = (analyse_layer(f, (28, 28, 256)) for f in (naive, reduced))
    assert naive.macs == 854_196_224
    assert naive.layers[-1].output == (28, 28, 672)
    assert reduced.macs == 271_351_808
    assert reduced.layers[-1].output == (28, 28, 480)


# --- receptive fields ----------------------------------------------------------------------------


def test_the_receptive_field_of_vgg16(vgg16):
    # 6, 16, 44, 100, 212: each pooling adds its step, each 3x3 convolution twice the step
    pools = [row.receptive_field for row in vgg16.layers if row.path.startswith("pool")]
    assert pools == [(6, 6), (16, 16), (44, 44), (100, 100), (212, 212)]
    assert vgg16.receptive_field == (212, 212)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks"
        ("alexnet", 195),
        ("resnet50_v1", 483),
        pytest.param("resnet101_v1", 1027, marks=pytest.mark.slow),
        pytest.param("resnet152_v1", 1507, marks=pytest.mark.slow),
        pytest.param("mobilenet_v1", 315, marks=pytest.mark.slow),
        # by hand: strides in the 3x3 convolutions, 11 + 3*8 + (8+3*16) + (16+5*32) + (32+2*64)
        ("resnet50", 427),
    ],
)
def test_published_receptive_fields(name, size):
    assert layer_table.analyse_model(name).receptive_field == (size, size)


@pytest.mark.parametrize(
    ("stages", "size"),
    [
        # 3, pooled 4 at step 2; of the unpooled pixels three lie in two windows: 4 + 2
        (1, 6),
        # 3, 4, 4 + 2 * 2 = 8, pooled 10 at step 4; unpooled, 10 + 4; unpooled again, two of these
        # see three windows: 10 + 2 * 4
        (2, 18),
    ],
)
def test_unpooling_sees_what_its_windows_saw(stages, size):
    options = {"features": (2,) * stages, "stage_sizes": (1,) * stages}
    net = layer_table.analyse_model("segnet", 64, **options)
    assert net.receptive_field == (size, size)


def test_windows_strides_and_dilation_add_up():
    def function(x, first, second, third):
        x = ops.conv(x, first, stride=2)  # 3, step 2
        x = ops.conv(x, second, dilation=3)  # 3 + 2 * 3 * 2 = 15
        x = ops.max_pool(x, 2)  # 15 + 2 = 17, step 4
        return ops.conv(x, third)  # 17 + 4 * 4 = 33

    kernel = (3, 3, 4, 4)
    net = analyse(function, (1, 64, 48, 4), kernel, kernel, (5, 1, 4, 4))
    fields = [row.receptive_field for row in net.layers]
    assert fields == [(1, 1), (3, 3), (15, 15), (17, 17), (33, 17)]
    assert [row.operation for row in net.layers[1:]] == [
        *("conv 3x3/2", "conv 3x3, dilation 3", "max pool 2x2/2", "conv 5x1")
    ]
    assert [row.depth for row in net.layers] == [0, 1, 2, 2, 3]


def test_the_largest_branch_counts_and_shifts_add():
    def function(x, small, large):
        return ops.conv(x, small) + ops.conv(x, large)

    net = analyse(function, (1, 32, 32, 1), (3, 3, 1, 1), (7, 7, 1, 1))
    assert net.layers[-1].receptive_field == (7, 7)
    assert net.depth == 1
    # pixels 2 to the left and 3 to the right of a unit's own
    net = analyse(lambda x: x[:, 2:-3] + x[:, 5:] + x[:, :-5], (1, 32, 8, 1))
    assert net.layers[-1].receptive_field == (6, 1)


def test_transposed_convolutions_see_what_reaches_their_outputs():
    net = analyse(
        lambda x, k: jax.lax.conv_transpose(
            x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (1, 8, 8, 1),
        (3, 3, 1, 1),
    )
    # of three taps over every second pixel one or two meet a value
    assert net.layers[-1].receptive_field == (2, 2)
    assert net.layers[-1].operation == "transposed conv 3x3"


def test_dense_layers_and_excitations_see_the_whole_image():
    flat = analyse(lambda x, w: x.reshape(1, -1) @ w, (1, 8, 6, 2), (96, 5))
    assert flat.layers[-1].receptive_field == (8, 6)
    assert (flat.layers[-1].operation, flat.macs) == ("dense", 480)
    excited = analyse_layer(partial(layers.squeeze_excitation, squeezed=2), (8, 6, 4))
    assert excited.layers[-1].receptive_field == (8, 6)
    assert [row.operation for row in excited.layers] == [
        *("input", "global avg pool", "conv 1x1", "relu", "conv 1x1", "sigmoid", "multiply")
    ]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_receptive_field_is_where_the_gradient_is_not_zero(stride):
    def function(x, kernel):
        y = ops.conv(x, kernel, stride=stride, dilation=2, padding="valid")
        y = ops.avg_pool(y, 3, 2) + ops.max_pool(y, 3, 2)
        return ops.conv(y, kernel, padding="valid")

    net = analyse(function, (1, 64, 64, 1), (3, 3, 1, 1))
    x, kernel = jnp.ones((1, 64, 64, 1)), jnp.ones((3, 3, 1, 1))
    gradient = jax.grad(lambda x: function(x, kernel)[0, 3, 3, 0])(x)[0, :, :, 0]
    seen = [np.flatnonzero(gradient.any(axis)) for axis in (1, 0)]
    assert net.layers[-1].receptive_field == tuple(s[-1] - s[0] + 1 for s in seen)


# --- any function --------------------------------------------------------------------------------


def test_a_linen_module_is_analysed_by_its_own_names():
    class Small(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(8, (3, 3), name="first")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
            return nn.Dense(10, name="head")(x.reshape(x.shape[0], -1))

    x = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    variables = jax.eval_shape(Small().init, jax.random.key(0), x)
    net = layer_table.analyse(Small().apply, variables, x)
    assert net.parameters == 3 * 9 * 8 + 8 + 8 * 8 * 8 * 10 + 10
    rows = {row.operation: row for row in net.layers}
    assert rows["conv 3x3"].path.endswith("first")
    assert rows["conv 3x3"].macs == 16 * 16 * 9 * 3 * 8
    assert rows["max pool 2x2/2"].receptive_field == (4, 4)
    assert rows["dense"].path.endswith("head")
    assert net.activations == 16 * 16 * 3 + 16 * 16 * 8 + 8 * 8 * 8 + 10


def test_shared_weights_count_once_as_parameters_and_each_time_as_work():
    net = analyse(lambda x, k: ops.conv(ops.conv(x, k), k), (1, 8, 8, 2), (3, 3, 2, 2))
    assert [row.parameters for row in net.layers] == [0, 36, 0]
    assert [row.macs for row in net.layers] == [0, 2304, 2304]
    assert net.parameters == 36


def test_nothing_is_run_or_allocated():
    """A kernel of 40 TB."""
    net = analyse(lambda x, w: x.mean((1, 2)) @ w, (1, 8, 8, 10**6), (10**6, 10**7))
    assert net.parameters == 10**13


def test_one_and_three_dimensional_maps():
    net = analyse(lambda x, k: ops.conv(x, k, stride=2), (1, 40, 3), (5, 3, 2))
    assert net.layers[-1].receptive_field == (5,)
    net = analyse(lambda x, k: ops.conv(x, k), (1, 8, 8, 8, 1), (1, 3, 5, 1, 1))
    assert net.layers[-1].receptive_field == (1, 3, 5)


def test_unknown_names_are_errors_of_use():
    with pytest.raises(UsageError, match="did you mean"):
        layer_table.analyse_model("resnet5")


def test_the_largest_receptive_field_of_some_scopes():
    analysis = layer_table.analyse_model("resnet20", 32)
    assert layer_table.largest_receptive_field(analysis, ["stem"]) == 3
    of_block = layer_table.largest_receptive_field(analysis, ["stem", "stage1_block1"])
    assert of_block == 7  # three convolutions of 3 x 3 pixels
    assert layer_table.largest_receptive_field(analysis, ["stage1_block1/conv1", "nowhere"]) == 5
