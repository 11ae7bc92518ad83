"""MobileNet V2: residual blocks between narrow layers, depthwise convolutions on wide ones.

Sandler et al. 2018, "MobileNetV2: Inverted residuals and linear bottlenecks", table 2. The plain
name is torchvision's network, `width` its multiplier; the rows named mobilenetv2_WIDTH are the
same network at timm's widths, with the names of timm's weights. Initialisation as in torchvision.
"""

import re
from functools import partial

from flax.core import Scope
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from cnn_jax import ops
from cnn_jax.layers import (
    Layer,
    conv_bn,
    conv_bn_activation,
    dense,
    dropout,
    global_avg_pool,
    layer,
    rematerialized,
    stochastic_depth,
    tensorflow_same,
)
from cnn_jax.models.entry import Entry, Timm

# expansion, output channels, blocks, stride of the first
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def divisible(channels: float, divisor: int = 8) -> int:
    """Return the multiple of the divisor next to this width, but no less than 90 % of it."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


@layer
def relu6(scope: Scope, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return min(max(x, 0), 6), the maximum passed back by the call's ReLU rule."""
    return ops.relu(x, scope.get_flag("relu_rule", "gradient")).clip(max=6)


@layer
def inverted_residual(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    expanded: int,
    size: int = 3,
    stride: int = 1,
    activation: Layer = relu6,
    excitation: Layer | None = None,
    drop_rate: float = 0.0,
    pad_after: bool = False,
    **norm: float,
) -> Float[Array, "n h2 w2 features"]:
    """1x1 to many channels, depthwise, 1x1 to few without activation (figures 3b and 4).

    Args:
      excitation: f(scope, x), which scales the depthwise convolution's channels.
      drop_rate: probability of stochastic depth.
      pad_after: pad as TensorFlow does; else on both sides.
      norm: epsilon and momentum of the batch normalisation.
    """
    y = x
    if expanded != x.shape[-1]:
        y = scope.child(conv_bn_activation, "expand")(y, expanded, activation, size=1, **norm)
    y = scope.child(conv_bn_activation, "depthwise")(
        y,
        expanded,
        activation,
        size=size,
        stride=stride,
        groups=expanded,
        padding=tensorflow_same(y, size, stride) if pad_after else "same",
        **norm,
    )
    if excitation is not None:
        y = scope.child(excitation, "se")(y)
    y = scope.child(conv_bn, "project")(y, features, size=1, **norm)
    if stride == 1 and features == x.shape[-1]:
        y = x + scope.child(stochastic_depth, "drop")(y, drop_rate)
    return y


def mobilenet_v2(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    width: float = 1.0,
    dropout_rate: float = 0.2,
) -> Float[Array, "n classes"]:
    """Return the logits. `width` multiplies every layer's channels, the last one's if above 1."""
    stem = scope.child(conv_bn_activation, "stem")
    x = stem(images, divisible(32 * width), relu6, stride=2)
    for stage, (expansion, channels, blocks, stride) in enumerate(STAGES, 1):
        for i in range(blocks):
            body = partial(
                inverted_residual,
                features=divisible(channels * width),
                expanded=expansion * x.shape[-1],
                stride=stride if i == 0 else 1,
            )
            x = scope.child(rematerialized(scope, body), f"stage{stage}_block{i + 1}")(x)
    last = scope.child(conv_bn_activation, "last")
    x = last(x, divisible(1280 * max(width, 1.0)), relu6, size=1)
    x = scope.child(global_avg_pool, "pool")(x)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=normal(0.01))


def torchvision_name(path: str) -> str:
    """Return torchvision's module: stage2_block1/depthwise/bn -> features.2.conv.1.1."""
    if path == "head":
        return "classifier.1"
    block, *inner = path.split("/")
    norm = int(inner[-1:] == ["bn"])
    count = sum(blocks for _, _, blocks, _ in STAGES)
    if block in ("stem", "last"):
        return f"features.{0 if block == 'stem' else count + 1}.{norm}"
    stage, number = map(int, re.fullmatch(r"stage(\d+)_block(\d+)", block).groups())
    index = sum(blocks for _, _, blocks, _ in STAGES[: stage - 1]) + number
    steps = ["depthwise", "project"] if index == 1 else ["expand", "depthwise", "project"]
    step = steps.index(inner[0])
    module = f"{step + norm}" if inner[0] == "project" else f"{step}.{norm}"
    return f"features.{index}.conv.{module}"


# module of ours -> timm's convolution and normalisation
_TIMM_OUTER = {"stem": "conv_stem bn1", "last": "conv_head bn2", "head": "classifier"}
_TIMM_EXPANDED = {"expand": "conv_pw bn1", "depthwise": "conv_dw bn2", "project": "conv_pwl bn3"}
_TIMM_UNEXPANDED = {"depthwise": "conv_dw bn1", "project": "conv_pw bn2"}
_TIMM_EXCITATION = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}


def timm_name(path: str, unexpanded: int = 1) -> str:
    """Return timm's module: stage2_block1/depthwise/bn -> blocks.1.0.bn2.

    For MobileNet V1, V2 and EfficientNet; the blocks of the first `unexpanded` stages have no
    expansion.
    """
    block, *inner = path.split("/")
    norm = int(inner[-1:] == ["bn"])
    if block in _TIMM_OUTER:
        return _TIMM_OUTER[block].split()[norm]
    stage, number = map(int, re.fullmatch(r"stage(\d+)_block(\d+)", block).groups())
    if inner[0] == "se":
        module = _TIMM_EXCITATION[inner[1]]
    else:
        modules = _TIMM_UNEXPANDED if stage <= unexpanded else _TIMM_EXPANDED
        module = modules[inner[0]].split()[norm]
    return f"blocks.{stage - 1}.{number - 1}.{module}"


def _timm(width: float) -> Entry:
    function = partial(mobilenet_v2, width=width)
    return Entry(function, published_name=timm_name, interpolation="bicubic")


MODELS = {
    "mobilenet_v2": Entry(
        mobilenet_v2, published_name=torchvision_name, timm=Timm("mobilenetv2_100", timm_name)
    ),
    "mobilenetv2_050": _timm(0.5),
    "mobilenetv2_140": _timm(1.4),
}
