"""AlexNet: five convolutions, three dense layers, ReLUs, dropout and local response normalisation.

Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks".
`alexnet` is the network as it is mostly drawn: without groups, for 227x227 images, normalised after
pooling. `alexnet_grouped` is the paper's, whose second, fourth and fifth convolutions see half of
the channels each (the two GPUs), normalised before pooling. `alexnet_torchvision` is Krizhevsky
2014, "One weird trick for parallelizing convolutional neural networks": fewer filters, no
normalisation. Initialisation: the paper's (section 5); torchvision's network, PyTorch's (but biases
of zero).
"""

from functools import partial

from flax.core import Scope
from jax.nn.initializers import constant, normal
from jaxtyping import Array, Float

from cnn_jax.layers import (
    adaptive_avg_pool,
    conv,
    dense,
    dropout,
    flatten,
    lecun_uniform,
    local_response_norm,
    max_pool,
    relu,
)
from cnn_jax.models.entry import Entry

_conv = partial(conv, init=normal(0.01))
_dense = partial(dense, init=normal(0.01))
_ones = constant(1.0)  # "to provide the ReLUs with positive inputs"


def convolutions(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    *,
    groups: int = 1,
    norm_first: bool = False,
) -> Float[Array, "n h2 w2 256"]:
    """Return the last pooling's map, 6x6 of images of 227x227. Arguments as of alexnet."""

    def reduce(x, number):
        pool = partial(scope.child(max_pool, f"pool{number}"), size=3, stride=2)
        norm = scope.child(local_response_norm, f"norm{number}")
        return pool(norm(x)) if norm_first else norm(pool(x))

    x = scope.child(_conv, "conv1")(images, 96, size=11, stride=4, padding="valid")
    x = reduce(scope.child(relu, "relu1")(x), 1)
    x = scope.child(_conv, "conv2")(x, 256, size=5, groups=groups, bias_init=_ones)
    x = reduce(scope.child(relu, "relu2")(x), 2)
    x = scope.child(_conv, "conv3")(x, 384)
    x = scope.child(relu, "relu3")(x)
    x = scope.child(_conv, "conv4")(x, 384, groups=groups, bias_init=_ones)
    x = scope.child(relu, "relu4")(x)
    x = scope.child(_conv, "conv5")(x, 256, groups=groups, bias_init=_ones)
    x = scope.child(relu, "relu5")(x)
    return scope.child(max_pool, "pool5")(x, 3, stride=2)


def alexnet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    groups: int = 1,
    norm_first: bool = False,
    dropout_rate: float = 0.5,
) -> Float[Array, "n classes"]:
    """Return the logits.

    Args:
      groups: of the second, fourth and fifth convolutions; 2 in the paper.
      norm_first: normalise before pooling, as the paper does.
    """
    x = convolutions(scope, images, groups=groups, norm_first=norm_first)
    x = scope.child(flatten, "flatten")(x)
    for i in (6, 7):
        x = scope.child(_dense, f"fc{i}")(x, 4096, bias_init=_ones)
        x = scope.child(relu, f"relu{i}")(x)
        x = scope.child(dropout, f"dropout{i}")(x, dropout_rate)
    return scope.child(_dense, "head")(x, num_classes)


def alexnet_torchvision(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    dropout_rate: float = 0.5,
) -> Float[Array, "n classes"]:
    """Return the logits; images of other sizes than 224 are averaged to 6x6 at the end."""
    convolve = partial(conv, init=lecun_uniform)
    x = scope.child(convolve, "conv1")(images, 64, size=11, stride=4, padding=2)
    x = scope.child(relu, "relu1")(x)
    x = scope.child(max_pool, "pool1")(x, 3, stride=2)
    x = scope.child(convolve, "conv2")(x, 192, size=5)
    x = scope.child(relu, "relu2")(x)
    x = scope.child(max_pool, "pool2")(x, 3, stride=2)
    for i, features in ((3, 384), (4, 256), (5, 256)):
        x = scope.child(convolve, f"conv{i}")(x, features)
        x = scope.child(relu, f"relu{i}")(x)
    x = scope.child(max_pool, "pool5")(x, 3, stride=2)
    x = scope.child(adaptive_avg_pool, "pool")(x, 6)
    x = scope.child(flatten, "flatten")(x)
    for i in (6, 7):
        x = scope.child(dropout, f"dropout{i}")(x, dropout_rate)
        x = scope.child(dense, f"fc{i}")(x, 4096)
        x = scope.child(relu, f"relu{i}")(x)
    return scope.child(dense, "head")(x, num_classes)


# our layer -> torchvision's module
TORCHVISION_NAMES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "head": "classifier.6",
}

MODELS = {
    "alexnet": Entry(alexnet, image_size=227),
    "alexnet_grouped": Entry(partial(alexnet, groups=2, norm_first=True), image_size=227),
    "alexnet_torchvision": Entry(alexnet_torchvision, published_name=TORCHVISION_NAMES.__getitem__),
}
