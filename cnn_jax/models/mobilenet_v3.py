"""MobileNet V3: a searched sequence of inverted residuals, hard-swish and excitation.

Howard et al. 2019, "Searching for MobileNetV3", tables 1 and 2; names, weights, initialisation
and batch normalisation are torchvision's.
"""

from collections.abc import Sequence
from functools import partial

import jax
from flax.core import Scope
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from cnn_jax.layers import (
    conv_bn_activation,
    dense,
    dropout,
    global_avg_pool,
    layer,
    relu,
    rematerialized,
    squeeze_excitation,
)
from cnn_jax.models.entry import Entry
from cnn_jax.models.mobilenet_v2 import divisible, inverted_residual


@layer
def hard_swish(scope: Scope, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x relu6(x + 3) / 6 (section 5.2)."""
    return jax.nn.hard_swish(x)


@layer
def hard_sigmoid(scope: Scope, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return relu6(x + 3) / 6."""
    return jax.nn.hard_sigmoid(x)


# kernel, expanded channels, output channels, squeeze-and-excitation, activation, stride
LARGE = (
    (3, 16, 16, False, relu, 1),
    (3, 64, 24, False, relu, 2),
    (3, 72, 24, False, relu, 1),
    (5, 72, 40, True, relu, 2),
    (5, 120, 40, True, relu, 1),
    (5, 120, 40, True, relu, 1),
    (3, 240, 80, False, hard_swish, 2),
    (3, 200, 80, False, hard_swish, 1),
    (3, 184, 80, False, hard_swish, 1),
    (3, 184, 80, False, hard_swish, 1),
    (3, 480, 112, True, hard_swish, 1),
    (3, 672, 112, True, hard_swish, 1),
    (5, 672, 160, True, hard_swish, 2),
    (5, 960, 160, True, hard_swish, 1),
    (5, 960, 160, True, hard_swish, 1),
)
SMALL = (
    (3, 16, 16, True, relu, 2),
    (3, 72, 24, False, relu, 2),
    (3, 88, 24, False, relu, 1),
    (5, 96, 40, True, hard_swish, 2),
    (5, 240, 40, True, hard_swish, 1),
    (5, 240, 40, True, hard_swish, 1),
    (5, 120, 48, True, hard_swish, 1),
    (5, 144, 48, True, hard_swish, 1),
    (5, 288, 96, True, hard_swish, 2),
    (5, 576, 96, True, hard_swish, 1),
    (5, 576, 96, True, hard_swish, 1),
)


def mobilenet_v3(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    blocks: Sequence[tuple],
    neurons: int,
    width: float = 1.0,
    dropout_rate: float = 0.2,
) -> Float[Array, "n classes"]:
    """Return the logits.

    Args:
      blocks: LARGE or SMALL.
      neurons: of the layer before the last.
      width: multiplier of every layer's channels.
    """
    norm = {"epsilon": 1e-3, "momentum": 0.99}
    stem = scope.child(conv_bn_activation, "stem")
    x = stem(images, divisible(16 * width), hard_swish, stride=2, **norm)
    for i, (size, expanded, features, excite, activation, stride) in enumerate(blocks, 1):
        expanded = divisible(expanded * width)
        excitation = partial(
            squeeze_excitation, squeezed=divisible(expanded // 4), gate=hard_sigmoid
        )
        body = partial(
            inverted_residual,
            features=divisible(features * width),
            expanded=expanded,
            size=size,
            stride=stride,
            activation=activation,
            excitation=excitation if excite else None,
            **norm,
        )
        x = scope.child(rematerialized(scope, body), f"block{i}")(x)
    x = scope.child(conv_bn_activation, "last")(x, 6 * x.shape[-1], hard_swish, size=1, **norm)
    x = scope.child(global_avg_pool, "pool")(x)
    x = scope.child(dense, "fc")(x, divisible(neurons * width), init=normal(0.01))
    x = scope.child(hard_swish, "hard_swish")(x)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=normal(0.01))


def torchvision_name(path: str, blocks: Sequence[tuple]) -> str:
    """Return torchvision's module: block4/se/fc1 -> features.4.block.2.fc1."""
    if path in ("fc", "head"):
        return "classifier.0" if path == "fc" else "classifier.3"
    block, *inner = path.split("/")
    norm = int(inner[-1:] == ["bn"])
    if block in ("stem", "last"):
        return f"features.{0 if block == 'stem' else len(blocks) + 1}.{norm}"
    index = int(block.removeprefix("block"))
    steps = ["expand", "depthwise", "se", "project"]
    if index == 1:
        steps.remove("expand")
    if not blocks[index - 1][3]:
        steps.remove("se")
    module = inner[1] if inner[0] == "se" else norm
    return f"features.{index}.block.{steps.index(inner[0])}.{module}"


def _entry(blocks: Sequence[tuple], neurons: int) -> Entry:
    function = partial(mobilenet_v3, blocks=blocks, neurons=neurons)
    return Entry(function, published_name=partial(torchvision_name, blocks=blocks))


MODELS = {
    "mobilenet_v3_large": _entry(LARGE, 1280),
    "mobilenet_v3_small": _entry(SMALL, 1024),
}
