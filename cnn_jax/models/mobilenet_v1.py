"""MobileNet V1: every 3x3 convolution split into a depthwise and a 1x1 one.

Howard et al. 2017, "MobileNets: Efficient convolutional neural networks for mobile vision
applications", table 1 (whose last depthwise layer is printed with stride 2; sizes and released
code have 1). `mobilenet_v1` is the released TensorFlow network as Keras builds it; its width
multipliers 0.75, 0.5 and 0.25 are rows of their own. `mobilenetv1_100` is timm's, which pads on
both sides, has another epsilon, and published weights. Initialisation as in Keras (Glorot's
uniform).
"""

from functools import partial

from flax.core import Scope
from jax.nn.initializers import glorot_uniform
from jaxtyping import Array, Float

from cnn_jax.layers import (
    conv_bn_activation,
    dense,
    dropout,
    global_avg_pool,
    layer,
    rematerialized,
    tensorflow_same,
)
from cnn_jax.models.entry import Entry
from cnn_jax.models.mobilenet_v2 import relu6, timm_name

# output channels, blocks, stride of the first
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))

conv_bn_relu6 = partial(conv_bn_activation, activation=relu6, init=glorot_uniform())


@layer
def separable_block(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    features: int,
    stride: int,
    pad_after: bool,
    **norm: float,
) -> Float[Array, "n h2 w2 features"]:
    """A 3x3 convolution of each channel, then 1x1 across them (figure 3, right)."""
    padding = [(0, 1), (0, 1)] if pad_after and stride == 2 else "same"
    channels = x.shape[-1]
    depthwise = scope.child(conv_bn_relu6, "depthwise")
    x = depthwise(x, channels, stride=stride, groups=channels, padding=padding, **norm)
    return scope.child(conv_bn_relu6, "project")(x, features, size=1, **norm)


def mobilenet_v1(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    width: float = 1.0,
    pad_after: bool = True,
    epsilon: float = 1e-3,
    momentum: float = 0.99,
    dropout_rate: float = 1e-3,
) -> Float[Array, "n classes"]:
    """Return the logits.

    Args:
      width: the multiplier alpha of every layer's channels.
      pad_after: strided convolutions pad as TensorFlow's, the odd zero after; else on both sides.
      epsilon, momentum: of the batch normalisation.
    """
    norm = {"epsilon": epsilon, "momentum": momentum}
    padding = tensorflow_same(images, 3, 2) if pad_after else "same"
    stem = scope.child(conv_bn_relu6, "stem")
    x = stem(images, int(32 * width), stride=2, padding=padding, **norm)
    for stage, (channels, blocks, stride) in enumerate(STAGES, 1):
        for i in range(blocks):
            body = partial(
                separable_block,
                features=int(channels * width),
                stride=stride if i == 0 else 1,
                pad_after=pad_after,
                **norm,
            )
            x = scope.child(rematerialized(scope, body), f"stage{stage}_block{i + 1}")(x)
    x = scope.child(global_avg_pool, "pool")(x)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=glorot_uniform())


timm_form = partial(mobilenet_v1, pad_after=False, epsilon=1e-5, momentum=0.9, dropout_rate=0.0)

_centred = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def _keras(width: float) -> Entry:
    return Entry(partial(mobilenet_v1, width=width), **_centred)


MODELS = {
    "mobilenet_v1": _keras(1.0),
    "mobilenet_v1_075": _keras(0.75),
    "mobilenet_v1_050": _keras(0.5),
    "mobilenet_v1_025": _keras(0.25),
    "mobilenetv1_100": Entry(
        timm_form,
        published_name=partial(timm_name, unexpanded=len(STAGES)),
        interpolation="bicubic",
        **_centred,
    ),
}
