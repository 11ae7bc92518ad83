"""ResNeXt: residual networks whose 3x3 convolutions run in many groups.

Xie et al. 2017, "Aggregated residual transformations for deep neural networks", in the form of
figure 3c. `32x4d` is 32 groups of 4 channels in the first stage (table 1), twice as many in each
stage after it. Names and weights are torchvision's, of resnext101_32x4d timm's; initialisation as
in the authors' code, which is ResNet's.
"""

from collections.abc import Sequence
from functools import partial

from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import conv_bn_relu, dense, global_avg_pool
from cnn_jax.models.entry import Entry
from cnn_jax.models.resnet import bottleneck_block, resnet, stages, torchvision_name


def cifar_resnext(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    depth: int,
    groups: int,
    group_width: int,
    zero_init_residual: bool = False,
) -> Float[Array, "n classes"]:
    """The networks of section 5.3: depth = 9n + 2, a 3x3 stem, outputs of 256, 512, 1024."""
    block = partial(
        bottleneck_block,
        groups=groups,
        group_width=group_width,
        zero_init_residual=zero_init_residual,
    )
    x = scope.child(conv_bn_relu, "stem")(images, 64)
    x = stages(scope, x, block, [(depth - 2) // 9] * 3, 64)
    x = scope.child(global_avg_pool, "pool")(x)
    return scope.child(dense, "head")(x, num_classes)


def _imagenet(
    groups: int, group_width: int, stage_sizes: Sequence[int], resize: int = 256
) -> Entry:
    block = partial(bottleneck_block, groups=groups, group_width=group_width)
    function = partial(resnet, block=block, stage_sizes=stage_sizes)
    return Entry(function, published_name=torchvision_name, resize=resize)


def _cifar(depth: int, groups: int, group_width: int) -> Entry:
    function = partial(cifar_resnext, depth=depth, groups=groups, group_width=group_width)
    return Entry(
        function, image_size=32, num_classes=10, published_name=torchvision_name, resize=32
    )


MODELS = {
    "resnext50_32x4d": _imagenet(32, 4, (3, 4, 6, 3)),
    "resnext101_32x4d": _imagenet(32, 4, (3, 4, 23, 3)),
    "resnext101_32x8d": _imagenet(32, 8, (3, 4, 23, 3)),
    "resnext101_64x4d": _imagenet(64, 4, (3, 4, 23, 3), resize=232),
    "resnext29_8x64d": _cifar(29, 8, 64),
    "resnext29_16x64d": _cifar(29, 16, 64),
}
