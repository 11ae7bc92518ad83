"""FCN-32s, 16s and 8s: VGG-16 whose dense layers slide over the image, and skips from its pools.

Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic segmentation", figure 3.
Details are those of the released networks: 100 zeros around the image, so that one of any size
fills the 7x7 of fc6; poolings that round up; transposed convolutions which begin as bilinear
interpolation; maps cropped to where they lie over each other. Weights take the names of
github.com/wkentaro/pytorch-fcn. There, convolutions that no published weights fill start at zero;
here those of the dense layers and the stacks before start as He et al.'s.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax.core import Scope
from jax.nn.initializers import zeros
from jaxtyping import Array, Float

from cnn_jax.layers import channel_dropout, conv, conv_transpose, max_pool, relu
from cnn_jax.models.entry import Entry
from cnn_jax.models.vgg import FEATURES

Map = Float[Array, "n h w c"]
STAGE_SIZES = (2, 2, 3, 3, 3)  # of VGG-16


def bilinear(key: Array, shape: Sequence[int], dtype: jnp.dtype) -> Float[Array, "k k c c"]:
    """Return the kernel with which a stride of k / 2 interpolates each channel bilinearly.

    Along each axis a triangle as wide as the kernel, 1 - |i - (k - 1) / 2| / ceil(k / 2); nothing
    is drawn. The initialiser of section 3.3.
    """
    del key
    size, _, outputs, inputs = shape
    triangle = 1 - jnp.abs(jnp.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
    identity = jnp.eye(outputs, inputs)
    return (triangle[:, None, None, None] * triangle[:, None, None] * identity).astype(dtype)


def _crop(x: Map, offset: int, like: Map) -> Map:
    _, height, width, _ = like.shape
    return x[:, offset : offset + height, offset : offset + width]


def fcn_vgg16(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    stride: int,
    features: Sequence[int] = FEATURES,
    neurons: int = 4096,
    dropout_rate: float = 0.5,
) -> Float[Array, "n h w classes"]:
    """Return the logits of every pixel, computed every `stride` pixels: 32, 16 or 8.

    Args:
      features: channels of the five stages.
      neurons: channels of fc6 and fc7.
    """
    x, pools = images, {}
    for stage, (convolutions, channels) in enumerate(zip(STAGE_SIZES, features, strict=True), 1):
        for i in range(1, convolutions + 1):
            padding = 100 if (stage, i) == (1, 1) else "same"
            x = scope.child(conv, f"conv{stage}_{i}")(x, channels, padding=padding)
            x = scope.child(relu, f"relu{stage}_{i}")(x)
        x = scope.child(max_pool, f"pool{stage}")(x, 2, ceil_mode=True)
        pools[stage] = x
    for i, size in ((6, 7), (7, 1)):
        x = scope.child(conv, f"fc{i}")(x, neurons, size=size, padding="valid")
        x = scope.child(relu, f"relu{i}")(x)
        x = scope.child(channel_dropout, f"dropout{i}")(x, dropout_rate)

    def score(name: str, x: Map) -> Map:
        return scope.child(conv, name)(x, num_classes, size=1, init=zeros)

    def enlarged(name: str, x: Map, factor: int) -> Map:
        settings = {"size": 2 * factor, "stride": factor, "bias": False, "init": bilinear}
        return scope.child(conv_transpose, name)(x, num_classes, **settings)

    x = score("score_fr", x)
    if stride <= 16:
        x = enlarged("upscore2", x, 2)
        x = x + _crop(score("score_pool4", pools[4]), 5, x)
    if stride <= 8:
        x = enlarged("upscore_pool4", x, 2)
        x = x + _crop(score("score_pool3", pools[3]), 9, x)
    name = "upscore" if stride == 32 else f"upscore{stride}"
    return _crop(enlarged(name, x, stride), {32: 19, 16: 27, 8: 31}[stride], images)


def _entry(stride: int) -> Entry:
    function = partial(fcn_vgg16, stride=stride)
    return Entry(function, image_size=500, num_classes=21, task="segmentation", resize=500)


MODELS = {
    "fcn32s_vgg16": _entry(32),
    "fcn16s_vgg16": _entry(16),
    "fcn8s_vgg16": _entry(8),
}
