"""The CPU's forms of convolutions against XLA's own."""

import json
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.ops.geometry import padding_pairs, per_axis
from tests.ops.test_convolution import CLOSE

QUICK = {"xla_backend_optimization_level": 0}  # to compile

# spatial sizes, kernel sizes, channels, features, groups, settings
CASES = {
    "depthwise": ((7, 6), (3, 3), 4, 4, 4, {}),
    "depthwise_strided": ((9, 8), (3, 5), 4, 4, 4, {"stride": (2, 3), "padding": 1}),
    "depthwise_dilated": ((11, 9), (3, 2), 3, 3, 3, {"dilation": (2, 3), "padding": "full"}),
    "depthwise_strided_and_dilated": (
        (13, 12),
        (3, 2),
        3,
        3,
        3,
        {"stride": (2, 4), "dilation": (2, 6), "padding": [(-1, 3), (6, 2)]},
    ),
    "depthwise_of_some_pixels": ((6, 7), (1, 2), 3, 3, 3, {"stride": (2, 3), "padding": 0}),
    "two_kernels_a_channel": ((6, 6), (3, 3), 3, 6, 3, {"padding": [(-1, 2), (0, 1)]}),
    "depthwise_signal": ((12,), (4,), 5, 5, 5, {"stride": 2}),
    "depthwise_volume": ((5, 4, 6), (3, 2, 3), 2, 2, 2, {"stride": (1, 2, 1)}),
    "depthwise_of_many_taps": ((10, 10), (9, 9), 3, 3, 3, {}),
    "groups": ((7, 6), (3, 3), 8, 12, 4, {"stride": 2}),
    "groups_of_many_channels": ((5, 5), (3, 3), 80, 4, 2, {"dilation": 2}),
    "more_features_than_pixels": ((3, 3), (3, 3), 4, 20, 1, {}),
    "strided_to_few_pixels": ((7, 8), (3, 2), 3, 16, 1, {"stride": (3, 4), "padding": 1}),
    "dilated_and_cropped": (
        (6, 7),
        (2, 2),
        3,
        24,
        1,
        {"dilation": (3, 2), "padding": [(0, 1), (-1, 2)]},
    ),
    "one_pixel_kernel": ((4, 4), (1, 1), 3, 9, 1, {"stride": 2, "padding": "valid"}),
    "volume_of_few_pixels": ((2, 2, 3), (2, 3, 1), 3, 24, 1, {}),
    "few_features": ((64, 66), (3, 3), 5, 8, 1, {"padding": "valid"}),
    "few_channels": ((64, 67), (2, 4), 3, 20, 1, {"padding": [(-1, 2), (3, 0)]}),
    "few_of_both": ((64, 65), (3, 3), 4, 5, 1, {"padding": "full"}),
    "long_signal": ((4099,), (5,), 2, 3, 1, {}),
    "thin_volume": ((16, 16, 17), (2, 3, 2), 2, 2, 1, {}),
    "images_by_large_windows": ((48, 51), (7, 7), 3, 6, 1, {"stride": 2}),
    "images_by_patches": ((64, 67), (8, 8), 3, 4, 1, {"stride": 8, "padding": "valid"}),
    "images_by_uneven_strides": ((65, 40), (4, 5), 1, 3, 1, {"stride": (3, 2), "padding": "full"}),
    "long_signal_by_strides": ((4099,), (11,), 2, 3, 1, {"stride": 4, "padding": [(0, 7)]}),
    "groups_that_merge_unevenly": ((5, 5), (2, 2), 36, 18, 18, {"padding": "valid"}),
}


def xlas(x, kernel, stride=1, padding="same", dilation=1, groups=1):
    axes = x.ndim - 2
    numbers = (f"N{'HWD'[:axes]}C", f"{'HWD'[:axes]}IO", f"N{'HWD'[:axes]}C")
    dilations = per_axis(dilation, axes)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        per_axis(stride, axes),
        padding_pairs(padding, kernel.shape[:axes], dilations),
        rhs_dilation=dilations,
        dimension_numbers=numbers,
        feature_group_count=groups,
    )


@pytest.fixture(params=CASES)
def case(request):
    """x, kernel, our convolution and XLA's."""
    spatial, sizes, channels, features, groups, settings = CASES[request.param]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *spatial, channels))
    kernel = rng.normal(size=(*sizes, channels // groups, features))
    return x, kernel, *(partial(f, groups=groups, **settings) for f in (ops.conv, xlas))


def test_outputs_and_both_gradients_are_xlas(case):
    x, kernel, ours, theirs = case

    def results(convolve):
        out, pull_back = jax.vjp(convolve, x, kernel)
        return out, *pull_back(jnp.cos(jnp.arange(out.size)).reshape(out.shape))

    results = jax.jit(results, static_argnums=0, compiler_options=QUICK)
    for ours_, theirs_ in zip(results(ours), results(theirs), strict=True):
        np.testing.assert_allclose(ours_, theirs_, **CLOSE)


def test_forward_mode_and_second_derivatives_are_xlas(case):
    x, kernel, ours, theirs = case

    def curvature(convolve):
        def slope(x, kernel):
            return jax.grad(lambda *args: jnp.sin(convolve(*args)).sum(), (0, 1))(x, kernel)

        return jax.jvp(slope, (x, kernel), (jnp.sin(x), jnp.cos(kernel)))[1]

    curvature = jax.jit(curvature, static_argnums=0, compiler_options=QUICK)
    for ours_, theirs_ in zip(curvature(ours), curvature(theirs), strict=True):
        np.testing.assert_allclose(ours_, theirs_, **CLOSE)


@pytest.mark.parametrize("groups", [2, 4])
def test_kernels_may_be_mapped(groups):
    rng = np.random.default_rng(0)
    x, kernels = rng.normal(size=(1, 5, 5, 4)), rng.normal(size=(3, 3, 3, 4 // groups, 4))
    mapped = jax.vmap(partial(ops.conv, groups=groups), (None, 0))(x, kernels)
    for out, kernel in zip(mapped, kernels, strict=True):
        np.testing.assert_allclose(out, xlas(x, kernel, groups=groups), **CLOSE)


@pytest.mark.parametrize(("platform", "plain"), [("cpu", False), ("tpu", True), ("cuda", True)])
def test_other_platforms_take_xlas_own(platform, plain):
    def program(groups, features):
        x, kernel = jnp.zeros((1, 5, 5, 4)), jnp.zeros((3, 3, 4 // groups, features))
        traced = jax.jit(partial(ops.conv, groups=groups)).trace(x, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert ("feature_group_count = 4" in program(groups=4, features=4)) == plain
    assert ("stablehlo.convolution" in program(groups=1, features=25)) == plain
    assert "stablehlo.convolution" in program(groups=1, features=24)


def gradient_program(case):
    """The lowered gradient of a function of the case's convolution, by its images alone."""
    spatial, sizes, channels, features, groups, settings = CASES[case]
    x = jnp.zeros((2, *spatial, channels))
    kernel = jnp.zeros((*sizes, channels // groups, features))
    settings = settings | {"groups": groups}
    gradient = jax.grad(lambda x: (ops.conv(x, kernel, **settings) ** 2).sum())
    return jax.jit(gradient).lower(x).as_text()


@pytest.mark.parametrize("case", ["few_features", "few_channels", "few_of_both", "long_signal"])
def test_neighbours_are_one_in_the_convolution_and_in_its_inputs_gradient(case):
    """To few features, that is: then it strides, where a plain gradient of strides dilates."""
    program = gradient_program(case)
    strides, dilations = (
        [max(json.loads(each)) for each in re.findall(rf"{setting} = (\[[\d, ]+\])", program)]
        for setting in ("stride", "lhs_dilate")
    )
    _, _, channels, features, *_ = CASES[case]
    assert sorted(stride > 1 for stride in strides) == sorted([features <= 16, channels <= 16])
    assert dilations == [1, 1]


@pytest.mark.parametrize("case", [name for name in CASES if "images_by" in name])
def test_the_gradient_of_images_computes_blocks_and_dilates_nothing(case):
    program = gradient_program(case)
    assert program.count("stablehlo.convolution") == 2
    dilations = re.findall(r"lhs_dilate = \[([\d, ]+)\]", program)
    assert set(dilations) == {"1, 1"}


@pytest.mark.parametrize("case", ["depthwise", "depthwise_strided"])
def test_the_gradient_of_a_depthwise_convolution_pads_once_a_phase_of_the_strides(case):
    """Not once a tap, and nothing is dilated."""
    program, settings = gradient_program(case), CASES[case][-1]
    pads = re.findall(
        r"stablehlo.pad .*low = \[([-\d, ]+)\], high = \[([-\d, ]+)\], interior = \[([\d, ]+)\]",
        program,
    )
    widening = [low for low, high, _ in pads if max(map(int, f"{low}, {high}".split(", "))) > 0]
    phases = math.prod(per_axis(settings.get("stride", 1), 2))
    assert len(widening) == 1 + phases  # of the convolution itself, and of its gradient
    assert {interior for *_, interior in pads} == {"0, 0, 0, 0"}
