"""Squeeze-and-excitation networks: residual networks whose blocks weigh their channels.

Hu et al. 2018, "Squeeze-and-excitation networks". SE-ResNet and SE-ResNeXt are ResNet and ResNeXt
(table 2) with a squeeze-and-excitation, reduced 16 times, at the end of every branch; SENet-154
(appendix) has a stem of three 3x3 convolutions, 64 groups, half as wide first 1x1 convolutions and
3x3 shortcuts. The plain names are timm's networks of these names, in the v1.5 form; `legacy_` are
timm's conversions of the authors' Caffe networks, with the stride of SE-ResNet in the first 1x1
convolution and an unpadded pooling after the stem. Initialisation: He et al.'s by the outputs, in
the excitations too, as in timm.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from flax.core import Scope
from jax.nn.initializers import ones, zeros
from jaxtyping import Array, Float

from cnn_jax.layers import (
    Layer,
    conv_bn,
    conv_bn_relu,
    conv_bn_relu_pool,
    dense,
    dropout,
    global_avg_pool,
    layer,
    max_pool,
    squeeze_excitation,
)
from cnn_jax.models import resnet
from cnn_jax.models.entry import Entry

REDUCTION = 16


@layer
def se_basic_block(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int = 1,
    zero_init_residual: bool = False,
) -> Float[Array, "n h2 w2 features"]:
    """Two 3x3 convolutions and the excitation, which has eight channels at least."""
    last_init = zeros if zero_init_residual else ones
    y = scope.child(conv_bn_relu, "conv1")(x, features, stride=stride)
    y = scope.child(conv_bn, "conv2")(y, features, scale_init=last_init)
    y = scope.child(squeeze_excitation, "se")(y, max(features // REDUCTION, 8))
    return resnet.residual_sum(scope, x, y, stride)


@layer
def se_bottleneck(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int = 1,
    shortcut_size: int = 1,
    **settings: Any,
) -> Float[Array, "n h2 w2 4*features"]:
    """ResNet's bottleneck, with its settings, and the excitation (figure 3).

    Args:
      shortcut_size: window of the strided shortcuts.
    """
    y = resnet.bottleneck(scope, x, features=features, stride=stride, **settings)
    y = scope.child(squeeze_excitation, "se")(y, 4 * features // REDUCTION)
    projection = partial(resnet.projection, size=shortcut_size if stride > 1 else 1)
    return resnet.residual_sum(scope, x, y, stride, projection)


def senet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    block: Layer,
    stage_sizes: Sequence[int],
    deep_stem: bool = False,
    padded_pool: bool = True,
    dropout_rate: float = 0,
    zero_init_residual: bool = False,
) -> Float[Array, "n classes"]:
    """Return the logits.

    Args:
      deep_stem: three 3x3 convolutions instead of one of 7x7.
      padded_pool: pad the pooling after the stem by a pixel on every side, as ResNet does; else
        the last windows reach over the end, as in Caffe.
    """
    pool = {"size": 3, "stride": 2} | ({"padding": 1} if padded_pool else {"ceil_mode": True})
    if deep_stem:
        x = scope.child(conv_bn_relu, "stem1")(images, 64, stride=2)
        x = scope.child(conv_bn_relu, "stem2")(x, 64)
        x = scope.child(conv_bn_relu, "stem3")(x, 128)
        x = scope.child(max_pool, "stem_pool")(x, **pool)
    else:
        x = conv_bn_relu_pool(scope, images, 64, size=7, stride=2, pool=pool)
    block = partial(block, zero_init_residual=zero_init_residual)
    x = resnet.stages(scope, x, block, stage_sizes, 64)
    x = scope.child(global_avg_pool, "pool")(x)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes)


def timm_name(path: str) -> str:
    """Return timm's module: stage1_block2/se/fc1 -> layer1.1.se.fc1, the rest as torchvision's."""
    stem = {
        "stem1": "conv1.0",
        "stem1/bn": "conv1.1",
        "stem2": "conv1.3",
        "stem2/bn": "conv1.4",
        "stem3": "conv1.6",
        "stem3/bn": "bn1",
    }
    if path in stem:
        return stem[path]
    block, excitation, dense_layer = path.partition("/se/")
    if excitation:
        return resnet.torchvision_name(f"{block}/conv1").replace("conv1", f"se.{dense_layer}")
    return resnet.torchvision_name(path)


def legacy_name(path: str) -> str:
    """Return the module of timm's legacy networks: layer0.conv1, layer1.0.se_module.fc1, ..."""
    if path == "head":
        return "last_linear"
    if path.startswith("stem"):
        name, _, norm = path.partition("/")
        return f"layer0.{'bn' if norm else 'conv'}{name.removeprefix('stem') or 1}"
    return timm_name(path).replace(".se.", ".se_module.")


def _timm(*stage_sizes: int, block: Layer = se_bottleneck, resize: int = 256, **settings) -> Entry:
    function = partial(senet, block=block, stage_sizes=stage_sizes, **settings)
    return Entry(function, published_name=timm_name, resize=resize, interpolation="bicubic")


def _legacy(*stage_sizes: int, block: Layer, **settings) -> Entry:
    settings["padded_pool"] = False
    function = partial(senet, block=block, stage_sizes=stage_sizes, **settings)
    return Entry(function, published_name=legacy_name)


v1_bottleneck = partial(se_bottleneck, stride_in_3x3=False)
resnext_32x4d = partial(se_bottleneck, groups=32, group_width=4)
senet154_bottleneck = partial(
    se_bottleneck, groups=64, group_width=4, first_divisor=2, shortcut_size=3
)
_senet154 = {"block": senet154_bottleneck, "deep_stem": True, "dropout_rate": 0.2}

MODELS = {
    "seresnet18": _timm(2, 2, 2, 2, block=se_basic_block),
    "seresnet34": _timm(3, 4, 6, 3, block=se_basic_block),
    "seresnet50": _timm(3, 4, 6, 3, resize=235),
    "seresnet101": _timm(3, 4, 23, 3),
    "seresnet152": _timm(3, 8, 36, 3),
    "seresnext50_32x4d": _timm(3, 4, 6, 3, block=resnext_32x4d),
    "seresnext101_32x4d": _timm(3, 4, 23, 3, block=resnext_32x4d),
    "senet154": _timm(3, 8, 36, 3, **_senet154),
    "legacy_seresnet50": _legacy(3, 4, 6, 3, block=v1_bottleneck),
    "legacy_seresnet101": _legacy(3, 4, 23, 3, block=v1_bottleneck),
    "legacy_seresnet152": _legacy(3, 8, 36, 3, block=v1_bottleneck),
    "legacy_seresnext50_32x4d": _legacy(3, 4, 6, 3, block=resnext_32x4d),
    "legacy_seresnext101_32x4d": _legacy(3, 4, 23, 3, block=resnext_32x4d),
    "legacy_senet154": _legacy(3, 8, 36, 3, **_senet154),
}
