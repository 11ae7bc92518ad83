"""Densely connected networks: every layer of a block sees the outputs of all before it.

Huang et al. 2017, "Densely connected convolutional networks". The ImageNet networks (table 1) are
DenseNet-BC: bottlenecks of four times the growth rate, transitions that halve the channels. Of the
CIFAR networks (table 2) `densenet_40_12` is the plain form with 40 layers and growth rate 12,
`densenet_bc_100_12` the BC form. Weights are torchvision's, and so is the initialisation, He et
al.'s by the inputs; the authors' code, following fb.resnet.torch, goes by the outputs.
"""

import re
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import (
    Moments,
    avg_pool,
    batch_moments,
    batch_norm,
    conv,
    dense,
    dropout,
    global_avg_pool,
    he_normal_fan_in,
    layer,
    relu,
    rematerialized,
)
from cnn_jax.models.entry import Entry
from cnn_jax.models.resnet import stem

_conv = partial(conv, bias=False, init=he_normal_fan_in)


def _activate(scope, x, moments=None, number=""):
    x = scope.child(batch_norm, f"bn{number}")(x, moments=moments)
    return scope.child(relu, f"relu{number}")(x)


@layer
def dense_layer(
    scope: Scope,
    x: Float[Array, "n h w c"],
    moments: Moments | None = None,
    *,
    growth: int,
    bottleneck: bool,
    dropout_rate: float,
) -> Float[Array, "n h w growth"]:
    """A 3x3 convolution of the activated input, behind a 1x1 one to 4 * growth as bottleneck.

    moments: the input's batch_moments, for its norm.
    """
    x, last = _activate(scope, x, moments, 1), 1
    if bottleneck:
        x = scope.child(_conv, "conv1")(x, 4 * growth, size=1)
        x = scope.child(dropout, "dropout1")(x, dropout_rate)
        x, last = _activate(scope, x, number=2), 2
    x = scope.child(_conv, f"conv{last}")(x, growth)
    return scope.child(dropout, f"dropout{last}")(x, dropout_rate)


@layer
def transition(
    scope: Scope,
    x: Float[Array, "n h w c"],
    moments: Moments | None = None,
    *,
    features: int,
    dropout_rate: float,
) -> Float[Array, "n h/2 w/2 features"]:
    """A 1x1 convolution of the activated input, then the mean of 2x2 pixels."""
    x = scope.child(_conv, "conv")(_activate(scope, x, moments), features, size=1)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(avg_pool, "pool")(x, 2)


def dense_blocks(
    scope: Scope,
    x: Float[Array, "n h w c"],
    block_sizes: Sequence[int],
    *,
    growth: int,
    bottleneck: bool = True,
    compression: float = 0.5,
    dropout_rate: float = 0,
) -> Float[Array, "n h2 w2 c2"]:
    """Run blocks of dense layers with a transition between each two, and activate the last.

    A channel's moments are taken once, and not anew for each layer's norm.
    """
    moments = batch_moments(scope, x)
    grow = partial(dense_layer, growth=growth, bottleneck=bottleneck, dropout_rate=dropout_rate)
    for block, layers in enumerate(block_sizes, 1):
        if block > 1:
            features = int(x.shape[-1] * compression)
            shrink = partial(transition, features=features, dropout_rate=dropout_rate)
            x = scope.child(rematerialized(scope, shrink), f"transition{block - 1}")(x, moments)
            moments = batch_moments(scope, x)
        for i in range(1, layers + 1):
            new = scope.child(rematerialized(scope, grow), f"block{block}_layer{i}")(x, moments)
            joined = [(x, moments), (new, batch_moments(scope, new))]
            x, moments = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *joined)
    return _activate(scope, x, moments)


def densenet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    block_sizes: Sequence[int],
    growth: int = 32,
    dropout_rate: float = 0,
) -> Float[Array, "n classes"]:
    """The ImageNet networks (table 1)."""
    x = stem(scope, images, 2 * growth, init=he_normal_fan_in)
    x = dense_blocks(scope, x, block_sizes, growth=growth, dropout_rate=dropout_rate)
    x = scope.child(global_avg_pool, "pool")(x)
    return scope.child(dense, "head")(x, num_classes)


def cifar_densenet(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    depth: int,
    growth: int,
    bottleneck: bool = False,
    dropout_rate: float = 0,
) -> Float[Array, "n classes"]:
    """The networks of section 3: depth = 3n + 4 (n layers a block), with bottlenecks 6n + 4.

    Args:
      bottleneck: the BC form, which also halves the channels between blocks.
      dropout_rate: after each convolution but the first; 0.2 in the paper where the data are not
        augmented.
    """
    x = scope.child(_conv, "stem")(images, 2 * growth if bottleneck else 16)
    x = dense_blocks(
        scope,
        x,
        [(depth - 4) // (6 if bottleneck else 3)] * 3,
        growth=growth,
        bottleneck=bottleneck,
        compression=0.5 if bottleneck else 1,
        dropout_rate=dropout_rate,
    )
    x = scope.child(global_avg_pool, "pool")(x)
    return scope.child(dense, "head")(x, num_classes)


def torchvision_name(path: str) -> str:
    """Return torchvision's module for a scope path.

    stem/bn -> features.norm0, block1_layer2/bn1 -> features.denseblock1.denselayer2.norm1.
    """
    if path == "head":
        return "classifier"
    outer, _, inner = path.partition("/")
    if outer == "stem":
        return "features.norm0" if inner else "features.conv0"
    if outer == "bn":
        return "features.norm5"
    outer = re.sub(r"block(\d+)_layer(\d+)", r"denseblock\1.denselayer\2", outer)
    return f"features.{outer}.{inner.replace('bn', 'norm')}"


def current_name(name: str) -> str:
    """Return today's name of a tensor in torchvision's files, which have norm.1 for norm1."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _imagenet(growth: int, *block_sizes: int) -> Entry:
    function = partial(densenet, growth=growth, block_sizes=block_sizes)
    return Entry(function, published_name=torchvision_name, current_name=current_name)


def _cifar(depth: int, growth: int, bottleneck: bool = False) -> Entry:
    function = partial(cifar_densenet, depth=depth, growth=growth, bottleneck=bottleneck)
    return Entry(
        function, image_size=32, num_classes=10, published_name=torchvision_name, resize=32
    )


MODELS = {
    "densenet121": _imagenet(32, 6, 12, 24, 16),
    "densenet169": _imagenet(32, 6, 12, 32, 32),
    "densenet201": _imagenet(32, 6, 12, 48, 32),
    "densenet264": _imagenet(32, 6, 12, 64, 48),
    "densenet161": _imagenet(48, 6, 12, 36, 24),
    "densenet_40_12": _cifar(40, 12),
    "densenet_100_12": _cifar(100, 12),
    "densenet_100_24": _cifar(100, 24),
    "densenet_bc_100_12": _cifar(100, 12, bottleneck=True),
    "densenet_bc_250_24": _cifar(250, 24, bottleneck=True),
    "densenet_bc_190_40": _cifar(190, 40, bottleneck=True),
}
