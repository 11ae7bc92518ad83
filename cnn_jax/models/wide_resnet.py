"""Wide residual networks: fewer layers, more channels.

Zagoruyko & Komodakis 2016, "Wide residual networks". The CIFAR networks are pre-activated (He et
al. 2016, "Identity mappings in deep residual networks"): normalisation and ReLU come before each
convolution, and a shortcut with weights sees the activated input. `wrn_28_10` has 28 layers, each
ten times as wide as in ResNet. The ImageNet networks, torchvision's `wide_resnet50_2` and
`wide_resnet101_2`, are post-activated bottlenecks with a 3x3 convolution twice as wide.

The four blocks of figure 1:
  basic          basic_block, widen=1:         wrn_40_1
  bottleneck     bottleneck_block, widen=1:    preact_resnet164
  basic-wide     basic_block, widen=k:         wrn_28_10
  wide-dropout   basic_block, and dropout:     wrn_28_10_dropout
Initialisation as in the authors' code: He et al.'s by the inputs.
"""

from functools import partial

from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax import errors
from cnn_jax.layers import (
    Layer,
    batch_norm,
    conv,
    dense,
    dropout,
    global_avg_pool,
    he_normal_fan_in,
    layer,
    relu,
)
from cnn_jax.models import resnet
from cnn_jax.models.entry import Entry

_conv = partial(conv, bias=False, init=he_normal_fan_in)


def _activate(scope, x, number=""):
    return scope.child(relu, f"relu{number}")(scope.child(batch_norm, f"bn{number}")(x))


def _shortcut(scope, x, activated, features, stride):
    if x.shape[-1] == features:
        return x
    return scope.child(_conv, "shortcut")(activated, features, size=1, stride=stride)


@layer
def basic_block(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int = 1,
    dropout_rate: float = 0,
) -> Float[Array, "n h2 w2 features"]:
    """Two 3x3 convolutions, dropout between them (figure 1a, c, d)."""
    activated = _activate(scope, x, 1)
    y = scope.child(_conv, "conv1")(activated, features, stride=stride)
    y = scope.child(dropout, "dropout")(_activate(scope, y, 2), dropout_rate)
    y = scope.child(_conv, "conv2")(y, features)
    return _shortcut(scope, x, activated, features, stride) + y


@layer
def bottleneck_block(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int = 1,
    dropout_rate: float = 0,
) -> Float[Array, "n h2 w2 4*features"]:
    """1x1, 3x3, 1x1 to four times as many channels, dropout before the 3x3 (figure 1b)."""
    activated = _activate(scope, x, 1)
    y = scope.child(_conv, "conv1")(activated, features, size=1, stride=stride)
    y = scope.child(dropout, "dropout")(_activate(scope, y, 2), dropout_rate)
    y = scope.child(_conv, "conv2")(y, features)
    y = scope.child(_conv, "conv3")(_activate(scope, y, 3), 4 * features, size=1)
    return _shortcut(scope, x, activated, 4 * features, stride) + y


def wide_resnet(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    depth: int,
    widen: int,
    block: Layer = basic_block,
    dropout_rate: float = 0,
) -> Float[Array, "n classes"]:
    """The CIFAR networks (table 1), widths 16k, 32k, 64k.

    Args:
      depth: 6n + 4 layers with basic blocks; 9n + 2 with bottlenecks.
      widen: k.

    Raises:
      UsageError: a depth that the blocks cannot make up.
    """
    convolutions, others = (3, 2) if block is bottleneck_block else (2, 4)
    if (depth - others) % (3 * convolutions):
        raise errors.UsageError(
            f"depth {depth} is not {3 * convolutions}n + {others}; take a multiple plus {others}"
        )
    block = partial(block, dropout_rate=dropout_rate)
    x = scope.child(_conv, "stem")(images, 16)
    x = resnet.stages(scope, x, block, [(depth - others) // (3 * convolutions)] * 3, 16 * widen)
    x = _activate(scope, x)
    x = scope.child(global_avg_pool, "pool")(x)
    return scope.child(dense, "head")(x, num_classes)


def _cifar(depth: int, widen: int, **settings: object) -> Entry:
    function = partial(wide_resnet, depth=depth, widen=widen, **settings)
    return Entry(function, image_size=32, num_classes=10, resize=32)


def _imagenet(*stage_sizes: int) -> Entry:
    block = partial(resnet.bottleneck_block, group_width=128)
    function = partial(resnet.resnet, block=block, stage_sizes=stage_sizes)
    return Entry(function, published_name=resnet.torchvision_name)


MODELS = {
    "preact_resnet164": _cifar(164, 1, block=bottleneck_block),
    "wrn_16_8": _cifar(16, 8),
    "wrn_22_8": _cifar(22, 8),
    "wrn_28_10": _cifar(28, 10),
    "wrn_28_10_dropout": _cifar(28, 10, dropout_rate=0.3),
    "wrn_28_12": _cifar(28, 12),
    "wrn_40_1": _cifar(40, 1),
    "wrn_40_4": _cifar(40, 4),
    "wide_resnet50_2": _imagenet(3, 4, 6, 3),
    "wide_resnet101_2": _imagenet(3, 4, 23, 3),
}
