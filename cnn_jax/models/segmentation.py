"""Segmentation heads over a dilated residual network: torchvision's FCN and DeepLabv3.

The backbone's last two stages keep an eighth of the image's size by dilation; a head makes logits
there, which are enlarged bilinearly to the image. In training a smaller head on the stage before
the last has a share of the loss: its logits pass the tap under "aux1".
Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic segmentation"; Chen et
al. 2017, "Rethinking atrous convolution for semantic image segmentation".
"""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import Layer, conv, conv_bn_relu, dropout, global_avg_pool, layer
from cnn_jax.models import resnet
from cnn_jax.models.entry import Entry

Map = Float[Array, "n h w c"]
Logits = Float[Array, "n h w classes"]


def enlarge(x: Map, height: int, width: int) -> Float[Array, "n height width c"]:
    """Interpolate bilinearly between the pixels' centres; beyond the outermost, repeat them."""
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[-1]), "bilinear")


def fcn_head(scope: Scope, x: Map, num_classes: int, dropout_rate: float = 0.1) -> Logits:
    """A 3x3 convolution to a quarter of the channels, dropout, and a 1x1 to the classes."""
    x = scope.child(conv_bn_relu, "conv")(x, x.shape[-1] // 4)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(conv, "logits")(x, num_classes, size=1)


@layer
def spatial_pyramid(
    scope: Scope, x: Map, features: int, rates: Sequence[int]
) -> Float[Array, "n h w features"]:
    """Convolutions of several dilations beside each other and the mean of the image, joined by 1x1.

    Chen et al. 2017, figure 5.
    """
    _, height, width, _ = x.shape
    branches = [scope.child(conv_bn_relu, "conv1x1")(x, features, size=1)]
    for i, rate in enumerate(rates, 1):
        branches.append(scope.child(conv_bn_relu, f"dilated{i}")(x, features, dilation=rate))
    mean = scope.child(global_avg_pool, "pool")(x)[:, None, None]
    mean = scope.child(conv_bn_relu, "pooled")(mean, features, size=1)
    branches.append(jnp.broadcast_to(mean, (x.shape[0], height, width, features)))
    return scope.child(conv_bn_relu, "project")(jnp.concatenate(branches, -1), features, size=1)


def deeplabv3_head(
    scope: Scope,
    x: Map,
    num_classes: int,
    rates: Sequence[int] = (12, 24, 36),
    dropout_rate: float = 0.5,
) -> Logits:
    """The pyramid, dropout, a 3x3 convolution, and a 1x1 to the classes."""
    x = scope.child(spatial_pyramid, "pyramid")(x, 256, rates)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    x = scope.child(conv_bn_relu, "conv")(x, 256)
    return scope.child(conv, "logits")(x, num_classes, size=1)


def dilated_backbone(
    scope: Scope, images: Float[Array, "n h w 3"], stage_sizes: Sequence[int]
) -> list[Map]:
    """Return the four stages' maps; the last three have an eighth of the image's size."""
    x = resnet.stem(scope, images)
    return resnet.feature_maps(scope, x, resnet.bottleneck_block, stage_sizes, 64, dilated=(3, 4))


def segmentation_resnet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    head: Layer,
    stage_sizes: Sequence[int],
    aux_heads: bool = True,
) -> Logits:
    """Return the logits of every pixel; `aux_heads` adds the auxiliary head, an FCN's."""
    _, height, width, _ = images.shape
    *_, third, last = scope.child(dilated_backbone, "backbone")(images, stage_sizes)

    @layer
    def whole(scope, head, x):
        return enlarge(head(scope, x, num_classes), height, width)

    if aux_heads:
        scope.child(whole, "aux1")(fcn_head, third)
    return scope.child(whole, "head")(head, last)


# our scope in a head -> torchvision's module
FCN_HEAD = {"conv": "0", "conv/bn": "1", "logits": "4"}
DEEPLABV3_HEAD = {
    "pyramid/conv1x1": "0.convs.0.0",
    "pyramid/conv1x1/bn": "0.convs.0.1",
    **{f"pyramid/dilated{i}": f"0.convs.{i}.0" for i in (1, 2, 3)},
    **{f"pyramid/dilated{i}/bn": f"0.convs.{i}.1" for i in (1, 2, 3)},
    "pyramid/pooled": "0.convs.4.1",
    "pyramid/pooled/bn": "0.convs.4.2",
    "pyramid/project": "0.project.0",
    "pyramid/project/bn": "0.project.1",
    "conv": "1",
    "conv/bn": "2",
    "logits": "4",
}


def torchvision_name(path: str, modules: Mapping[str, str]) -> str:
    """Return torchvision's module: head/conv/bn -> classifier.1, or .2 of DeepLabv3's `modules`."""
    part, _, rest = path.partition("/")
    if part == "backbone":
        return f"backbone.{resnet.torchvision_name(rest)}"
    if part == "aux1":
        return f"aux_classifier.{FCN_HEAD[rest]}"
    return f"classifier.{modules[rest]}"


def _entry(head: Layer, modules: Mapping[str, str], *stage_sizes: int) -> Entry:
    return Entry(
        partial(segmentation_resnet, head=head, stage_sizes=stage_sizes),
        image_size=520,
        num_classes=21,
        task="segmentation",
        published_name=partial(torchvision_name, modules=modules),
        unused=("aux_classifier.",),
        resize=520,
    )


MODELS = {
    "fcn_resnet50": _entry(fcn_head, FCN_HEAD, 3, 4, 6, 3),
    "fcn_resnet101": _entry(fcn_head, FCN_HEAD, 3, 4, 23, 3),
    "deeplabv3_resnet50": _entry(deeplabv3_head, DEEPLABV3_HEAD, 3, 4, 6, 3),
    "deeplabv3_resnet101": _entry(deeplabv3_head, DEEPLABV3_HEAD, 3, 4, 23, 3),
}
