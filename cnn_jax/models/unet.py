"""U-Net: an encoder and a decoder that exchange their maps at every size.

Ronneberger, Fischer & Brox 2015, "U-Net: convolutional networks for biomedical image segmentation",
figure 1. Convolutions keep the size here, so that every pixel gets logits; the paper's do not
(`padding="valid"`: 572 pixels give 388), and its skips are cropped. `unet_bn` normalises after each
3x3 convolution, which then has no bias, and takes the weights of github.com/milesial/Pytorch-UNet.
"""

import re
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.errors import UsageError
from cnn_jax.layers import conv, conv_bn_relu, conv_transpose, layer, max_pool, relu
from cnn_jax.models.entry import Entry

Map = Float[Array, "n h w c"]


@layer
def double_convolution(
    scope: Scope, x: Map, features: int, normalized: bool, padding: str
) -> Float[Array, "n h2 w2 features"]:
    """Two 3x3 convolutions, each rectified."""
    for i in (1, 2):
        if normalized:
            x = scope.child(conv_bn_relu, f"conv{i}")(x, features, padding=padding)
        else:
            x = scope.child(conv, f"conv{i}")(x, features, padding=padding)
            x = scope.child(relu, f"relu{i}")(x)
    return x


def _cropped(x: Map, like: Map) -> Map:
    """The centre of x, as large as the other map."""
    top, left = ((a - b) // 2 for a, b in zip(x.shape[1:3], like.shape[1:3], strict=True))
    return x[:, top : top + like.shape[1], left : left + like.shape[2]]


def unet(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    features: Sequence[int] = (64, 128, 256, 512, 1024),
    normalized: bool = False,
    padding: str = "same",
) -> Float[Array, "n h2 w2 classes"]:
    """Return the logits of every pixel, or with padding="valid" of those in the middle.

    Args:
      features: channels at each size, from the image's down; the pooling between them halves.

    Raises:
      UsageError: a size that does not halve so often.
    """
    block = partial(double_convolution, normalized=normalized, padding=padding)
    skips, x = [], images
    for i, channels in enumerate(features, 1):
        if skips:
            if any(size % 2 for size in x.shape[1:3]):
                raise UsageError(
                    f"images of {images.shape[1]}x{images.shape[2]} do not halve "
                    f"{len(features) - 1} times; take multiples of {2 ** (len(features) - 1)}"
                )
            x = scope.child(max_pool, f"pool{i - 1}")(x, 2)
        x = scope.child(block, f"down{i}")(x, channels)
        skips.append(x)
    skips.pop()
    for i, skip in reversed(list(enumerate(skips, 1))):
        x = scope.child(conv_transpose, f"up{i}_conv")(x, skip.shape[-1], size=2, stride=2)
        x = jnp.concatenate([_cropped(skip, x), x], axis=-1)
        x = scope.child(block, f"up{i}")(x, skip.shape[-1])
    return scope.child(conv, "head")(x, num_classes, size=1)


def milesial_name(path: str, levels: int = 5) -> str:
    """Return the module of Pytorch-UNet: down2/conv1/bn -> down1.maxpool_conv.1.double_conv.1."""
    if path == "head":
        return "outc.conv"
    side, level, rest = re.fullmatch(r"(down|up)(\d+)(.*)", path).groups()
    number = int(level) - 1 if side == "down" else levels - int(level)
    if rest == "_conv":
        return f"up{number}.up"
    module = 3 * (int(rest[len("/conv")]) - 1) + rest.endswith("/bn")
    if side == "up":
        return f"up{number}.conv.double_conv.{module}"
    return (
        f"down{number}.maxpool_conv.1.double_conv.{module}"
        if number
        else (f"inc.double_conv.{module}")
    )


MODELS = {
    "unet": Entry(unet, image_size=512, num_classes=2, task="segmentation", resize=512),
    "unet_bn": Entry(
        partial(unet, normalized=True),
        image_size=512,
        num_classes=2,
        task="segmentation",
        resize=512,
        published_name=milesial_name,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
}
