"""SegNet: VGG-16's convolutions and their mirror, whose unpooling puts values where maxima were.

Badrinarayanan, Kendall & Cipolla 2017, "SegNet: a deep convolutional encoder-decoder architecture
for image segmentation", figure 2. The decoder keeps the places of the maxima alone, not the maps.
"""

import re
from collections.abc import Sequence

from flax.core import Scope
from jaxtyping import Array, Float, Int

from cnn_jax import ops
from cnn_jax.layers import conv, conv_bn_relu, tapped
from cnn_jax.models.entry import Entry
from cnn_jax.models.vgg import FEATURES

Map = Float[Array, "n h w c"]
Places = tuple[Int[Array, "n h2 w2 c"], tuple[int, int]]

STAGE_SIZES = (2, 2, 3, 3, 3)  # of VGG-16


def pool(scope: Scope, x: Map) -> tuple[Float[Array, "n h2 w2 c"], Places]:
    """Return the maxima of 2x2 pixels; where they were, and the size before."""
    values, indices = ops.max_pool_with_argmax(x, 2)
    return tapped(scope, values), (indices, x.shape[1:3])


def unpool(scope: Scope, x: Map, places: Places) -> Float[Array, "n h w c"]:
    """Put the values where the maxima were, zeros elsewhere."""
    return tapped(scope, ops.max_unpool(x, *places))


def segnet(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    features: Sequence[int] = FEATURES,
    stage_sizes: Sequence[int] = STAGE_SIZES,
) -> Float[Array, "n h w classes"]:
    """Return the logits of every pixel.

    Args:
      features, stage_sizes: channels and convolutions of each stage, from the image's size down.
    """
    x, places = images, []
    for stage, (convolutions, channels) in enumerate(zip(stage_sizes, features, strict=True), 1):
        for i in range(1, convolutions + 1):
            x = scope.child(conv_bn_relu, f"encoder{stage}_{i}")(x, channels)
        x, where = scope.child(pool, f"pool{stage}")(x)
        places.append(where)
    narrower = (None, *features)  # what each stage's last convolution leaves to the one before
    for stage in range(len(stage_sizes), 0, -1):
        x = scope.child(unpool, f"unpool{stage}")(x, places.pop())
        for i in range(stage_sizes[stage - 1], 0, -1):
            channels = features[stage - 1] if i > 1 else narrower[stage - 1]
            if channels is not None:
                x = scope.child(conv_bn_relu, f"decoder{stage}_{i}")(x, channels)
    return scope.child(conv, "head")(x, num_classes)


def vinceecws_name(path: str) -> str:
    """Return the module of SegNet_PyTorch: encoder1_2/bn -> BNEn12, decoder1_2 -> ConvDe12."""
    if path == "head":
        return "ConvDe11"
    side, stage, i, norm = re.fullmatch(r"(en|de)coder(\d)_(\d)(/bn)?", path).groups()
    return f"{'BN' if norm else 'Conv'}{side.capitalize()}{stage}{i}"


MODELS = {
    "segnet": Entry(
        segnet,
        image_size=480,
        num_classes=12,
        task="segmentation",
        resize=480,
        published_name=vinceecws_name,
    )
}
