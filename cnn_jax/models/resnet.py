"""Residual networks: the ImageNet family in its two forms, and the CIFAR family.

He et al. 2015, "Deep residual learning for image recognition". The plain names are the v1.5 form
that torchvision publishes weights of: the stride of a bottleneck lies in its 3x3 convolution. The
paper's form (`_v1`) has it in the first 1x1; without bottlenecks the two are the same network.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax.core import Scope
from jax.nn.initializers import ones, zeros
from jaxtyping import Array, Float

from cnn_jax.layers import (
    Layer,
    chain,
    conv_bn,
    conv_bn_relu,
    conv_bn_relu_pool,
    conv_bn_sum,
    dense,
    global_avg_pool,
    layer,
    relu,
)
from cnn_jax.models.entry import Entry


def projection(
    scope: Scope, x: Float[Array, "n h w c"], features: int, stride: int, size: int = 1
) -> Float[Array, "n h2 w2 features"]:
    """Shortcut option B: a strided 1x1 convolution."""
    return scope.child(conv_bn, "shortcut")(x, features, size=size, stride=stride)


def zero_padding(
    scope: Scope, x: Float[Array, "n h w c"], features: int, stride: int
) -> Float[Array, "n h2 w2 features"]:
    """Shortcut option A: every stride-th pixel, zeros for the new channels, no parameters."""
    new = features - x.shape[-1]
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


def residual_sum(
    scope: Scope, x: Array, y: Array, stride: int, shortcut: Layer = projection
) -> Float[Array, "n h2 w2 c2"]:
    """Return relu(x + y), with x through the shortcut where y has another shape."""
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        x = shortcut(scope, x, y.shape[-1], stride)
    return scope.child(relu, "relu")(x + y)


@layer
def basic_block(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int = 1,
    shortcut: Layer = projection,
    zero_init_residual: bool = False,
) -> Float[Array, "n h2 w2 features"]:
    """Two 3x3 convolutions (figure 5, left)."""
    y = scope.child(conv_bn_relu, "conv1")(x, features, stride=stride)
    y = scope.child(conv_bn, "conv2")(y, features, scale_init=zeros if zero_init_residual else ones)
    return residual_sum(scope, x, y, stride, shortcut)


def bottleneck(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int,
    groups: int = 1,
    group_width: int = 64,
    first_divisor: int = 1,
    dilation: int = 1,
    stride_in_3x3: bool = True,
    zero_init_residual: bool = False,
    projected: Float[Array, "n h2 w2 d"] | None = None,
) -> Float[Array, "n h2 w2 4*features"]:
    """1x1 to few channels, 3x3, 1x1 to four times as many (figure 5, right), without the sum.

    Args:
      groups: of the 3x3 convolution.
      group_width: a group's channels where `features` is 64; 64 in one group are He et al.'s.
      first_divisor: how many times narrower the first 1x1 convolution is than the 3x3 one.
      dilation: of the 3x3 convolution.
      projected: what a projection shortcut without a stride takes, if its output is to be added.
    """
    width = features * group_width // 64 * groups
    outer, inner = (1, stride) if stride_in_3x3 else (stride, 1)
    last_init = zeros if zero_init_residual else ones
    y = scope.child(conv_bn_relu, "conv1")(x, width // first_divisor, size=1, stride=outer)
    y = scope.child(conv_bn_relu, "conv2")(y, width, stride=inner, groups=groups, dilation=dilation)
    last = {"conv3": (y, {"scale_init": last_init})}
    shortcut = {} if projected is None else {"shortcut": (projected, {})}
    return conv_bn_sum(scope, last | shortcut, 4 * features)


@layer
def bottleneck_block(
    scope: Scope, x: Float[Array, "n h w c"], *, features: int, stride: int = 1, **settings: Any
) -> Float[Array, "n h2 w2 4*features"]:
    """The bottleneck, with its settings, and the sum (figure 5, right)."""
    body = partial(bottleneck, scope, x, features=features, stride=stride, **settings)
    if stride == 1 and x.shape[-1] != 4 * features:
        return scope.child(relu, "relu")(body(projected=x))
    return residual_sum(scope, x, body(), stride)


def stem(
    scope: Scope, images: Float[Array, "n h w c"], features: int = 64, **settings: Any
) -> Float[Array, "n h2 w2 features"]:
    """Return the ImageNet networks' first convolution and pooling: a quarter of the size."""
    pool = {"size": 3, "stride": 2, "padding": 1}
    return conv_bn_relu_pool(scope, images, features, size=7, stride=2, pool=pool, **settings)


def feature_maps(
    scope: Scope,
    x: Float[Array, "n h w c"],
    block: Layer,
    stage_sizes: Sequence[int],
    features: int,
    dilated: Sequence[int] = (),
) -> list[Float[Array, "n _h _w _c"]]:
    """Run stages of blocks and return what each one makes.

    Each stage after the first doubles the width and halves the size, but for the numbers in
    `dilated`: there the stride becomes dilation of all 3x3 convolutions behind it, so that they
    see what they saw (Yu, Koltun & Funkhouser 2017, "Dilated residual networks").
    """
    maps, dilation = [], 1
    for stage, blocks in enumerate(stage_sizes, 1):
        stride, before = 1 if stage == 1 else 2, dilation
        if stage in dilated:
            stride, dilation = 1, dilation * stride
        bodies = {}
        for i in range(1, blocks + 1):
            body = partial(block, features=features * 2 ** (stage - 1), stride=stride)
            spread = before if i == 1 else dilation
            if spread > 1:
                body = partial(body, dilation=spread)
            bodies[f"stage{stage}_block{i}"] = body
            stride = 1
        x = chain(scope, x, bodies)
        maps.append(x)
    return maps


def stages(
    scope: Scope,
    x: Float[Array, "n h w c"],
    block: Layer,
    stage_sizes: Sequence[int],
    features: int,
) -> Float[Array, "n h2 w2 c2"]:
    """Run stages of blocks; each stage after the first halves the size and doubles the width."""
    return feature_maps(scope, x, block, stage_sizes, features)[-1]


def resnet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    block: Layer,
    stage_sizes: Sequence[int],
    zero_init_residual: bool = False,
) -> Float[Array, "n classes"]:
    """The ImageNet networks (table 1). `zero_init_residual`: every block starts as its shortcut."""
    block = partial(block, zero_init_residual=zero_init_residual)
    x = stages(scope, stem(scope, images), block, stage_sizes, 64)
    x = scope.child(global_avg_pool, "pool")(x)
    return scope.child(dense, "head")(x, num_classes)


def cifar_resnet(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    depth: int,
    zero_init_residual: bool = False,
) -> Float[Array, "n classes"]:
    """The networks of section 4.2: depth = 6n + 2, widths 16, 32, 64, shortcuts without weights."""
    block = partial(basic_block, shortcut=zero_padding, zero_init_residual=zero_init_residual)
    x = scope.child(conv_bn_relu, "stem")(images, 16)
    x = stages(scope, x, block, [(depth - 2) // 6] * 3, 16)
    x = scope.child(global_avg_pool, "pool")(x)
    return scope.child(dense, "head")(x, num_classes)


def torchvision_name(path: str) -> str:
    """Return torchvision's module for a scope path: stage1_block2/conv1/bn -> layer1.1.bn1."""
    if path == "head":
        return "fc"
    block, _, rest = path.partition("/")
    if block == "stem":
        return "bn1" if rest == "bn" else "conv1"
    stage, number = re.fullmatch(r"stage(\d+)_block(\d+)", block).groups()
    conv, _, norm = rest.partition("/")
    if conv == "shortcut":
        module = "downsample.1" if norm else "downsample.0"
    else:
        module = conv.replace("conv", "bn") if norm else conv
    return f"layer{stage}.{int(number) - 1}.{module}"


v1_bottleneck = partial(bottleneck_block, stride_in_3x3=False)


def _imagenet(block: Layer, *stage_sizes: int) -> Entry:
    function = partial(resnet, block=block, stage_sizes=stage_sizes)
    return Entry(function, published_name=torchvision_name)


def _cifar(depth: int) -> Entry:
    return Entry(partial(cifar_resnet, depth=depth), image_size=32, num_classes=10, resize=32)


MODELS = {
    "resnet18": _imagenet(basic_block, 2, 2, 2, 2),
    "resnet34": _imagenet(basic_block, 3, 4, 6, 3),
    "resnet50": _imagenet(bottleneck_block, 3, 4, 6, 3),
    "resnet101": _imagenet(bottleneck_block, 3, 4, 23, 3),
    "resnet152": _imagenet(bottleneck_block, 3, 8, 36, 3),
    "resnet18_v1": _imagenet(basic_block, 2, 2, 2, 2),
    "resnet34_v1": _imagenet(basic_block, 3, 4, 6, 3),
    "resnet50_v1": _imagenet(v1_bottleneck, 3, 4, 6, 3),
    "resnet101_v1": _imagenet(v1_bottleneck, 3, 4, 23, 3),
    "resnet152_v1": _imagenet(v1_bottleneck, 3, 8, 36, 3),
    "resnet20": _cifar(20),
    "resnet32": _cifar(32),
    "resnet44": _cifar(44),
    "resnet56": _cifar(56),
    "resnet110": _cifar(110),
}
