"""RegNet: widths that grow linearly, rounded to a few stages.

Radosavovic et al. 2020, "Designing network design spaces", section 3.3 and tables 8 and 9 of the
appendix; Y is X with squeeze-and-excitation. The rows, names and initialisation are torchvision's.
"""

import re
from functools import partial

import numpy as np
from flax.core import Scope
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from cnn_jax.layers import (
    chain,
    conv_bn,
    conv_bn_relu,
    dense,
    global_avg_pool,
    layer,
    relu,
    squeeze_excitation,
)
from cnn_jax.models.entry import Entry, Timm
from cnn_jax.models.mobilenet_v2 import divisible


def stages(
    depth: int, initial: int, slope: float, step: float, group_width: int
) -> list[tuple[int, int, int]]:
    """Return (width, blocks, channels a group) of each stage (equations 2 to 4).

    Args:
      depth: blocks in all, d.
      initial, slope: the j-th block's width before rounding is initial + slope j, w_0 and w_a.
      step: widths are rounded to initial * step^s, then to eights, w_m.
      group_width: channels a group; where they exceed a stage's width, the width itself. Widths
        are rounded to multiples of it.
    """
    linear = initial + slope * np.arange(depth)
    powers = np.round(np.log(linear / initial) / np.log(step))
    widths = 8 * np.round(initial * step**powers / 8).astype(int)
    found = []
    for width, blocks in zip(*np.unique(widths, return_counts=True), strict=True):
        group = min(group_width, int(width))
        found.append((divisible(int(width), group), int(blocks), group))
    return found


@layer
def bottleneck(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int,
    group_width: int,
    excitation: float,
) -> Float[Array, "n h2 w2 features"]:
    """1x1, 3x3 in groups, excitation, 1x1, all of one width: the X block (figure 4) or Y's.

    Args:
      excitation: squeezed channels over the block's input channels; 0 for X.
    """
    y = scope.child(conv_bn_relu, "conv1")(x, features, size=1)
    groups = features // group_width
    y = scope.child(conv_bn_relu, "conv2")(y, features, stride=stride, groups=groups)
    if excitation:
        y = scope.child(squeeze_excitation, "se")(y, round(excitation * x.shape[-1]))
    y = scope.child(conv_bn, "conv3")(y, features, size=1)
    if stride != 1 or features != x.shape[-1]:
        x = scope.child(conv_bn, "shortcut")(x, features, size=1, stride=stride)
    return scope.child(relu, "relu")(x + y)


def regnet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    depth: int,
    initial: int,
    slope: float,
    step: float,
    group_width: int,
    excitation: float = 0.0,
) -> Float[Array, "n classes"]:
    """Return the logits; the arguments are those of `stages` and of the block."""
    x = scope.child(conv_bn_relu, "stem")(images, 32, stride=2)
    table = stages(depth, initial, slope, step, group_width)
    for stage, (features, blocks, group) in enumerate(table, 1):
        body = partial(bottleneck, features=features, group_width=group, excitation=excitation)
        strides = (2, *[1] * (blocks - 1))
        bodies = {
            f"stage{stage}_block{i}": partial(body, stride=stride)
            for i, stride in enumerate(strides, 1)
        }
        x = chain(scope, x, bodies)
    x = scope.child(global_avg_pool, "pool")(x)
    return scope.child(dense, "head")(x, num_classes, init=normal(0.01))


_MODULES = {"conv1": "f.a", "conv2": "f.b", "se": "f.se", "conv3": "f.c", "shortcut": "proj"}


def torchvision_name(path: str) -> str:
    """Return torchvision's module: stage1_block2/conv1/bn -> trunk_output.block1.block1-1.f.a.1."""
    if path == "head":
        return "fc"
    block, *inner = path.split("/")
    norm = int(inner[-1:] == ["bn"])
    if block == "stem":
        return f"stem.{norm}"
    stage, number = re.fullmatch(r"stage(\d+)_block(\d+)", block).groups()
    module = inner[1] if inner[0] == "se" else norm
    prefix = f"trunk_output.block{stage}.block{stage}-{int(number) - 1}"
    return f"{prefix}.{_MODULES[inner[0]]}.{module}"


def timm_name(path: str) -> str:
    """Return timm's module: stage1_block2/conv1/bn -> s1.b2.conv1.bn."""
    if path == "head":
        return "head.fc"
    block, *inner = path.split("/")
    if inner[-1:] != ["bn"] and inner[:1] != ["se"]:
        inner.append("conv")
    block = re.sub(r"stage(\d+)_block(\d+)", r"s\1.b\2", block)
    return ".".join([block, *inner]).replace("shortcut", "downsample")


def _x(
    depth: int,
    initial: int,
    slope: float,
    step: float,
    group_width: int,
    timm: str | None = None,
    **options,
) -> Entry:
    function = partial(
        regnet,
        depth=depth,
        initial=initial,
        slope=slope,
        step=step,
        group_width=group_width,
        **options,
    )
    same = timm and Timm(f"regnet{timm}", timm_name)
    return Entry(function, published_name=torchvision_name, timm=same)


_y = partial(_x, excitation=0.25)

# d, w_0, w_a, w_m, channels a group; timm's network, where it has the same widths
MODELS = {
    "regnet_x_400mf": _x(22, 24, 24.48, 2.54, 16),
    "regnet_x_800mf": _x(16, 56, 35.73, 2.28, 16, "x_008"),
    "regnet_x_1_6gf": _x(18, 80, 34.01, 2.25, 24, "x_016"),
    "regnet_x_3_2gf": _x(25, 88, 26.31, 2.25, 48, "x_032"),
    "regnet_x_8gf": _x(23, 80, 49.56, 2.88, 120, "x_080"),
    "regnet_x_16gf": _x(22, 216, 55.59, 2.1, 128, "x_160"),
    "regnet_x_32gf": _x(23, 320, 69.86, 2.0, 168, "x_320"),
    "regnet_y_400mf": _y(16, 48, 27.89, 2.09, 8, "y_004"),
    "regnet_y_800mf": _y(14, 56, 38.84, 2.4, 16),
    "regnet_y_1_6gf": _y(27, 48, 20.71, 2.65, 24, "y_016"),
    "regnet_y_3_2gf": _y(21, 80, 42.63, 2.66, 24, "y_032"),
    "regnet_y_8gf": _y(17, 192, 76.82, 2.19, 56),
    "regnet_y_16gf": _y(18, 200, 106.23, 2.48, 112, "y_160"),
    "regnet_y_32gf": _y(20, 232, 115.89, 2.53, 232, "y_320"),
    "regnet_y_128gf": _y(27, 456, 160.83, 2.52, 264, "y_1280"),
}
