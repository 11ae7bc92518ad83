"""MobileNet V1, V2 and V3."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import apply, init

from cnn_jax import taps
from cnn_jax.models.mobilenet_v1 import separable_block
from cnn_jax.models.mobilenet_v2 import divisible, inverted_residual, relu6
from tests.models.tracing import parameters, shapes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_v1", 4_231_976),  # keras.applications.MobileNet, trainable
        ("mobilenet_v1_075", 2_585_560),  # alpha=0.75
        ("mobilenet_v1_050", 1_331_592),  # alpha=0.5
        ("mobilenet_v1_025", 470_072),  # alpha=0.25
        ("mobilenetv1_100", 4_231_976),  # timm
        ("mobilenet_v2", 3_504_872),  # torchvision, MobileNet_V2_Weights: num_params
        ("mobilenetv2_050", 1_968_680),  # timm
        ("mobilenetv2_140", 6_108_776),  # timm
        ("mobilenet_v3_large", 5_483_032),  # torchvision, num_params
        ("mobilenet_v3_small", 2_542_856),  # torchvision, num_params
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_width_is_an_option():
    # torchvision: mobilenet_v2(width_mult=1.4), mobilenet_v3_small(width_mult=0.5)
    assert parameters("mobilenet_v2", width=1.4) == 6_108_776
    assert parameters("mobilenet_v3_small", width=0.5) == 917_264


@pytest.mark.parametrize(
    ("channels", "expected"), [(32 * 1.4, 48), (24 * 0.35, 8), (11.9, 16), (88 * 0.5, 48), (3, 8)]
)
def test_widths_are_multiples_of_eight_and_hardly_shrink(channels, expected):
    assert divisible(channels) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the paper's tables: the stem's size, and the last map's at 224 pixels
        ("mobilenet_v1", {"stem": (112, 32), "stage5_block2": (7, 1024)}),
        ("mobilenet_v2", {"stem": (112, 32), "stage7_block1": (7, 320), "last": (7, 1280)}),
        ("mobilenet_v3_large", {"block7": (14, 80), "block15": (7, 160), "last": (7, 960)}),
        ("mobilenet_v3_small", {"block2": (28, 24), "block11": (7, 96), "last": (7, 576)}),
    ],
)
def test_sizes_are_the_tables(name, expected):
    found = shapes(name)
    assert {path: (found[path][0], found[path][2]) for path in expected} == expected


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("mobilenet_v2", {"stem/relu6", "stage2_block1/expand/relu6"}),
        ("mobilenet_v3_small", {"stem/hard_swish", "block1/se/gate", "block1/depthwise/relu"}),
    ],
)
def test_activations_are_layers_of_their_own(name, paths):
    assert paths <= set(shapes(name, 32))


def build(block, x, **settings):
    """Return the block with its settings bound, and variables drawn from key 0."""
    block = functools.partial(block, **settings)
    return block, jax.jit(init(block))(jax.random.key(0), x)[1]


def run(block, variables, x, rngs=None, **flags):
    """Return path -> value of the block's activations."""

    @jax.jit
    def seen(variables, x, rngs):
        store = {}
        apply(block, flags={"tap": taps.record(store), **flags})(variables, x, rngs=rngs)
        return store

    return seen(variables, x, rngs)


def test_blocks_that_keep_the_shape_add_their_input():
    x = jax.random.normal(jax.random.key(1), (2, 6, 6, 8))
    seen = run(*build(inverted_residual, x, features=8, expanded=16), x)
    np.testing.assert_array_equal(seen[""], x + seen["project"])
    for change in ({"features": 16}, {"features": 8, "stride": 2}):
        seen = run(*build(inverted_residual, x, expanded=16, **change), x)
        np.testing.assert_array_equal(seen[""], seen["project"])


def test_blocks_that_do_not_widen_skip_the_expansion():
    x = jnp.ones((1, 4, 4, 8))
    narrow, wide = {"depthwise", "project"}, {"expand", "depthwise", "project"}
    for expanded, names in ((8, narrow), (16, wide)):
        block = functools.partial(inverted_residual, features=4, expanded=expanded)
        _, variables = jax.eval_shape(init(block), jax.random.key(0), x)
        assert set(variables["params"]) == names


def test_relu6_is_bounded_and_follows_the_relu_rule():
    x = jnp.array([-1.0, 2.0, 7.0])
    np.testing.assert_array_equal(apply(relu6)({}, x), [0, 2, 6])

    def gradient(rule):
        return jax.grad(lambda x: -apply(relu6, flags={"relu_rule": rule})({}, x).sum())(x)

    np.testing.assert_array_equal(gradient("gradient"), [0, -1, 0])
    np.testing.assert_array_equal(gradient("guided"), [0, 0, 0])


@pytest.mark.parametrize(("pad_after", "padding"), [(True, (0, 1)), (False, (1, 1))])
def test_tensorflow_pads_strided_convolutions_after(pad_after, padding):
    x = jax.random.normal(jax.random.key(1), (1, 8, 8, 4))
    for block, settings in ((separable_block, {}), (inverted_residual, {"expanded": 4})):
        block, variables = build(block, x, features=4, stride=2, pad_after=pad_after, **settings)
        expected = jax.lax.conv_general_dilated(
            x,
            variables["params"]["depthwise"]["kernel"],
            (2, 2),
            (padding, padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )
        found = run(block, variables, x)["depthwise/conv"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    x = jax.random.normal(jax.random.key(1), (400, 2, 2, 4))
    block, variables = build(inverted_residual, x, features=4, expanded=8, drop_rate=0.75)
    seen = run(block, variables, x, rngs={"dropout": jax.random.key(2)}, train=True)
    kept = np.any(seen["drop"] != 0, axis=(1, 2, 3))
    assert 60 < kept.sum() < 140  # within four standard deviations of 100
    np.testing.assert_allclose(seen["drop"][kept], 4 * seen["project"][kept], rtol=1e-6)
    other = run(block, variables, x, rngs={"dropout": jax.random.key(3)}, train=True)
    assert np.any(kept != np.any(other["drop"] != 0, axis=(1, 2, 3)))
    evaluated = run(block, variables, x)
    np.testing.assert_array_equal(evaluated["drop"], evaluated["project"])
