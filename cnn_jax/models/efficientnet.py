"""EfficientNet: one small searched network, scaled in width, depth and resolution; and V2.

Tan & Le 2019, "EfficientNet: Rethinking model scaling for convolutional neural networks", table 1,
and 2021, "EfficientNetV2: Smaller models and faster training", table 4. The plain names are
torchvision's networks, whose initialisation, epsilons and momenta these have. `tf_efficientnet_b*`
are timm's ports of the authors' networks, which pad as TensorFlow does and have an epsilon of 1e-3.
EfficientNet-Lite (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite") is V1 for
hardware that multiplies integers: no excitation, ReLU6, and neither the first and the last stage's
depth nor the stem's and the last convolution's width are scaled.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import (
    Layer,
    conv_bn,
    conv_bn_activation,
    dense,
    dropout,
    global_avg_pool,
    layer,
    rematerialized,
    squeeze_excitation,
    stochastic_depth,
    tensorflow_same,
)
from cnn_jax.models.entry import Entry, Timm
from cnn_jax.models.mobilenet_v2 import divisible, inverted_residual, relu6, timm_name

PUBLISHED_CLASSES = 1000


def head_init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Draw a head's weights uniformly within 1 / sqrt(classes), as for 1000 where there are fewer.

    Torchvision has it of any number; the logits of eight classes would begin in the tens.
    """
    bound = 1 / math.sqrt(max(shape[-1], PUBLISHED_CLASSES))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


@layer
def silu(scope: Scope, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x sigmoid(x), also called swish."""
    return jax.nn.silu(x)


def mbconv(channels: int, expansion: int, **settings: float) -> Layer:
    """Return MobileNetV2's block for these input channels, with swish and squeeze-and-excitation.

    Excitation squeezes to a quarter of the block's input, not of the expanded channels.
    """
    squeezed = max(1, channels // 4)
    return partial(
        inverted_residual,
        expanded=divisible(channels * expansion),
        activation=silu,
        excitation=partial(squeeze_excitation, squeezed=squeezed, activation=silu),
        **settings,
    )


def lite_conv(channels: int, expansion: int, **settings: float) -> Layer:
    """Return MobileNetV2's block for these input channels: ReLU6, no squeeze-and-excitation."""
    return partial(inverted_residual, expanded=divisible(channels * expansion), **settings)


@layer
def fused_residual(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    expanded: int,
    size: int,
    stride: int,
    drop_rate: float,
    pad_after: bool,
    **norm: float,
) -> Float[Array, "n h2 w2 features"]:
    """An inverted residual whose expansion and depthwise convolution are one (V2, figure 2)."""
    padding = tensorflow_same(x, size, stride) if pad_after else "same"
    shape = {"size": size, "stride": stride, "padding": padding}
    if expanded == x.shape[-1]:
        y = scope.child(conv_bn_activation, "conv")(x, features, silu, **shape, **norm)
    else:
        y = scope.child(conv_bn_activation, "expand")(x, expanded, silu, **shape, **norm)
        y = scope.child(conv_bn, "project")(y, features, size=1, **norm)
    if stride == 1 and features == x.shape[-1]:
        y = x + scope.child(stochastic_depth, "drop")(y, drop_rate)
    return y


def fused_mbconv(channels: int, expansion: int, **settings: float) -> Layer:
    """Return the fused block for these input channels."""
    return partial(fused_residual, expanded=divisible(channels * expansion), **settings)


class Stage(NamedTuple):
    """A row of the papers' tables; the stride is that of the first block."""

    block: Callable[..., Layer]  # f(input channels, expansion, **settings) -> block
    expansion: int
    size: int
    stride: int
    features: int
    blocks: int


B0 = (
    Stage(mbconv, 1, 3, 1, 16, 1),
    Stage(mbconv, 6, 3, 2, 24, 2),
    Stage(mbconv, 6, 5, 2, 40, 2),
    Stage(mbconv, 6, 3, 2, 80, 3),
    Stage(mbconv, 6, 5, 1, 112, 3),
    Stage(mbconv, 6, 5, 2, 192, 4),
    Stage(mbconv, 6, 3, 1, 320, 1),
)
V2_S = (
    Stage(fused_mbconv, 1, 3, 1, 24, 2),
    Stage(fused_mbconv, 4, 3, 2, 48, 4),
    Stage(fused_mbconv, 4, 3, 2, 64, 4),
    Stage(mbconv, 4, 3, 2, 128, 6),
    Stage(mbconv, 6, 3, 1, 160, 9),
    Stage(mbconv, 6, 3, 2, 256, 15),
)
V2_M = (
    Stage(fused_mbconv, 1, 3, 1, 24, 3),
    Stage(fused_mbconv, 4, 3, 2, 48, 5),
    Stage(fused_mbconv, 4, 3, 2, 80, 5),
    Stage(mbconv, 4, 3, 2, 160, 7),
    Stage(mbconv, 6, 3, 1, 176, 14),
    Stage(mbconv, 6, 3, 2, 304, 18),
    Stage(mbconv, 6, 3, 1, 512, 5),
)
V2_L = (
    Stage(fused_mbconv, 1, 3, 1, 32, 4),
    Stage(fused_mbconv, 4, 3, 2, 64, 7),
    Stage(fused_mbconv, 4, 3, 2, 96, 7),
    Stage(mbconv, 4, 3, 2, 192, 10),
    Stage(mbconv, 6, 3, 1, 224, 19),
    Stage(mbconv, 6, 3, 2, 384, 25),
    Stage(mbconv, 6, 3, 1, 640, 7),
)


def scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """Return B0's stages with these multiples of channels and blocks (2019, section 3.3)."""
    return tuple(
        stage._replace(
            features=divisible(stage.features * width), blocks=math.ceil(stage.blocks * depth)
        )
        for stage in B0
    )


def scaled_lite(width: float, depth: float) -> tuple[Stage, ...]:
    """Return Lite's stages: the depth of the first and of the last is not scaled."""
    first, *middle, last = (stage._replace(block=lite_conv) for stage in scaled(width, depth))
    return (first._replace(blocks=1), *middle, last._replace(blocks=1))


def efficientnet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    stages: Sequence[Stage],
    stem: int,
    last: int,
    dropout_rate: float,
    stochastic_depth_rate: float = 0.2,
    activation: Layer = silu,
    pad_after: bool = False,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> Float[Array, "n classes"]:
    """Return the logits.

    Args:
      activation: of the first convolution and of the last one; the stages have their own.
      stem, last: channels of the first convolution, and of the last one, a 1x1.
      stochastic_depth_rate: of a block after the last; it grows linearly from 0 at the first.
      pad_after: pad as TensorFlow does; else on both sides.
      epsilon, momentum: of the batch normalisation.
    """
    norm = {"epsilon": epsilon, "momentum": momentum}
    padding = tensorflow_same(images, 3, 2) if pad_after else "same"
    first = scope.child(conv_bn_activation, "stem")
    x = first(images, stem, activation, stride=2, padding=padding, **norm)
    done, total = 0, sum(stage.blocks for stage in stages)
    for number, stage in enumerate(stages, 1):
        for i in range(stage.blocks):
            body = stage.block(
                x.shape[-1],
                stage.expansion,
                features=stage.features,
                size=stage.size,
                stride=stage.stride if i == 0 else 1,
                drop_rate=stochastic_depth_rate * done / total,
                pad_after=pad_after,
                **norm,
            )
            x = scope.child(rematerialized(scope, body), f"stage{number}_block{i + 1}")(x)
            done += 1
    x = scope.child(conv_bn_activation, "last")(x, last, activation, size=1, **norm)
    x = scope.child(global_avg_pool, "pool")(x)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=head_init)


def torchvision_name(path: str, stages: Sequence[Stage]) -> str:
    """Return torchvision's module: stage2_block1/depthwise/bn -> features.2.0.block.1.1."""
    if path == "head":
        return "classifier.1"
    block, *inner = path.split("/")
    norm = int(inner[-1:] == ["bn"])
    if block in ("stem", "last"):
        return f"features.{0 if block == 'stem' else len(stages) + 1}.{norm}"
    number, i = map(int, re.fullmatch(r"stage(\d+)_block(\d+)", block).groups())
    stage = stages[number - 1]
    if stage.block is fused_mbconv:
        steps = ["conv"] if stage.expansion == 1 else ["expand", "project"]
    else:
        steps = ["expand", "depthwise", "se", "project"][stage.expansion == 1 :]
    module = inner[1] if inner[0] == "se" else norm
    return f"features.{number}.{i - 1}.block.{steps.index(inner[0])}.{module}"


# the authors' port's names within a block and outside -> timm's
_PORT_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_PORT_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PORT_UNEXPANDED = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def name_of_port(name: str, stages: Sequence[Stage]) -> str:
    """Return timm's name of a tensor of the files efficientnet-lite*-*.pth, and others as they are.

    Those count the blocks through all stages: _blocks.1._bn0.weight -> blocks.1.0.bn1.weight.
    """
    outer, _, rest = name.partition(".")
    if outer in _PORT_OUTER:
        return f"{_PORT_OUTER[outer]}.{rest}"
    within = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if within is None:
        return name
    blocks = [(s, i) for s, stage in enumerate(stages) for i in range(stage.blocks)]
    index, module, leaf = int(within[1]), within[2], within[3]
    modules = _PORT_EXPANDED if index else _PORT_UNEXPANDED
    if index >= len(blocks) or module not in modules:
        return name
    stage, i = blocks[index]
    return f"blocks.{stage}.{i}.{modules[module]}.{leaf}"


def _v1(width: float, depth: float, dropout_rate: float, **norm: float) -> Callable:
    return partial(
        efficientnet,
        stages=scaled(width, depth),
        stem=divisible(32 * width),
        last=4 * divisible(320 * width),
        dropout_rate=dropout_rate,
        **norm,
    )


def _torchvision(
    width: float,
    depth: float,
    dropout_rate: float,
    image_size: int,
    resize: int,
    timm: Timm | None = None,
    **norm: float,
) -> Entry:
    return Entry(
        _v1(width, depth, dropout_rate, **norm),
        image_size,
        published_name=partial(torchvision_name, stages=scaled(width, depth)),
        timm=timm,
        resize=resize,
        interpolation="bicubic",
    )


def _timm(width: float, depth: float, dropout_rate: float, image_size: int, resize: int) -> Entry:
    function = _v1(width, depth, dropout_rate, pad_after=True, epsilon=1e-3)
    return Entry(
        function, image_size, published_name=timm_name, resize=resize, interpolation="bicubic"
    )


def _lite(width: float, depth: float, dropout_rate: float, image_size: int, resize: int) -> Entry:
    stages = scaled_lite(width, depth)
    function = partial(
        efficientnet,
        stages=stages,
        stem=32,
        last=1280,
        dropout_rate=dropout_rate,
        activation=relu6,
        pad_after=True,
        epsilon=1e-3,
    )
    return Entry(
        function,
        image_size,
        published_name=timm_name,
        current_name=partial(name_of_port, stages=stages),
        resize=resize,
        interpolation="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


def _v2(
    stages: tuple[Stage, ...], dropout_rate: float, image_size: int, **preprocessing: object
) -> Entry:
    function = partial(
        efficientnet,
        stages=stages,
        stem=stages[0].features,
        last=1280,
        dropout_rate=dropout_rate,
        epsilon=1e-3,
    )
    names = partial(torchvision_name, stages=stages)
    return Entry(function, image_size, published_name=names, resize=image_size, **preprocessing)


def _same(name: str) -> Timm:
    """timm's network of this name; from B5 on its norms have another epsilon than torchvision's."""
    return Timm(f"{name} (tf_{name} has the same names and pads otherwise)", timm_name)


_large = {"epsilon": 1e-3, "momentum": 0.99}
_centred = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_lite0 = _lite(1.0, 1.0, 0.2, 224, 256)

# width, depth, dropout rate, image size, resize
MODELS = {
    "efficientnet_b0": _torchvision(1.0, 1.0, 0.2, 224, 256, _same("efficientnet_b0")),
    "efficientnet_b1": _torchvision(1.0, 1.1, 0.2, 240, 256, _same("efficientnet_b1")),
    "efficientnet_b2": _torchvision(1.1, 1.2, 0.3, 288, 288, _same("efficientnet_b2")),
    "efficientnet_b3": _torchvision(1.2, 1.4, 0.3, 300, 320, _same("efficientnet_b3")),
    "efficientnet_b4": _torchvision(1.4, 1.8, 0.4, 380, 384, _same("efficientnet_b4")),
    "efficientnet_b5": _torchvision(1.6, 2.2, 0.4, 456, 456, **_large),
    "efficientnet_b6": _torchvision(1.8, 2.6, 0.5, 528, 528, **_large),
    "efficientnet_b7": _torchvision(2.0, 3.1, 0.5, 600, 600, **_large),
    "tf_efficientnet_b0": _timm(1.0, 1.0, 0.2, 224, 256),
    "tf_efficientnet_b1": _timm(1.0, 1.1, 0.2, 240, 272),
    "tf_efficientnet_b2": _timm(1.1, 1.2, 0.3, 260, 292),
    "tf_efficientnet_b3": _timm(1.2, 1.4, 0.3, 300, 331),
    "tf_efficientnet_b4": _timm(1.4, 1.8, 0.4, 380, 412),
    "tf_efficientnet_b5": _timm(1.6, 2.2, 0.4, 456, 488),
    "tf_efficientnet_b6": _timm(1.8, 2.6, 0.5, 528, 560),
    "tf_efficientnet_b7": _timm(2.0, 3.1, 0.5, 600, 632),
    "tf_efficientnet_lite0": _lite0,
    "tf_efficientnet_lite1": _lite(1.0, 1.1, 0.2, 240, 272),
    "tf_efficientnet_lite2": _lite(1.1, 1.2, 0.3, 260, 292),
    "tf_efficientnet_lite3": _lite(1.2, 1.4, 0.3, 280, 310),
    "tf_efficientnet_lite4": _lite(1.4, 1.8, 0.3, 300, 326),
    "efficientnet_lite0": Entry(  # padded on both sides, another training
        partial(_lite0.function, pad_after=False, epsilon=1e-5),
        published_name=timm_name,
        interpolation="bicubic",
    ),
    "efficientnet_v2_s": _v2(V2_S, 0.2, 384),
    "efficientnet_v2_m": _v2(V2_M, 0.3, 480),
    "efficientnet_v2_l": _v2(V2_L, 0.4, 480, interpolation="bicubic", **_centred),
}
