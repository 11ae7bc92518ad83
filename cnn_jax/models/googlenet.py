"""GoogLeNet: inception modules, which look at every position with several window sizes at once.

Szegedy et al. 2015, "Going deeper with convolutions", table 1. `googlenet` is the paper's network;
what the paper leaves open (where normalisation lies and its constants, initialisation) is that of
the Caffe team's replication, bvlc_googlenet. `googlenet_torchvision` is batch-normalised and has
3x3 convolutions where the paper has 5x5 ones; its weights expect images scaled to -1..1.

With aux_heads=True both have the two auxiliary classifiers of training, whose logits leave the
network through the taps "aux1" and "aux2".
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax.core import Scope
from jax.nn.initializers import constant, normal, variance_scaling, zeros
from jaxtyping import Array, Float

from cnn_jax.layers import (
    Layer,
    adaptive_avg_pool,
    avg_pool,
    conv,
    conv_bn_relu,
    dense,
    dropout,
    flatten,
    global_avg_pool,
    layer,
    local_response_norm,
    max_pool,
    relu,
    rematerialized,
)
from cnn_jax.models.entry import IMAGENET_MEAN, IMAGENET_STD, Entry


class Inception(NamedTuple):
    """The filters of a module's convolutions: a row of table 1."""

    f1x1: int
    f3x3_reduce: int
    f3x3: int
    f5x5_reduce: int
    f5x5: int
    pool_proj: int


MODULES = {
    "3a": Inception(64, 96, 128, 16, 32, 32),
    "3b": Inception(128, 128, 192, 32, 96, 64),
    "4a": Inception(192, 96, 208, 16, 48, 64),
    "4b": Inception(160, 112, 224, 24, 64, 64),
    "4c": Inception(128, 128, 256, 24, 64, 64),
    "4d": Inception(112, 144, 288, 32, 64, 64),
    "4e": Inception(256, 160, 320, 32, 128, 128),
    "5a": Inception(256, 160, 320, 32, 128, 128),
    "5b": Inception(384, 192, 384, 48, 128, 128),
}

xavier = variance_scaling(1.0, "fan_in", "uniform")  # Caffe's


@layer
def conv_relu(
    scope: Scope, x: Float[Array, "n h w c"], features: int, **settings: Any
) -> Float[Array, "n h2 w2 features"]:
    """Convolve and rectify: the paper's unit. Taps: conv, relu and the whole."""
    x = scope.child(conv, "conv")(x, features, init=xavier, bias_init=constant(0.2), **settings)
    return scope.child(relu, "relu")(x)


_normalized_unit = partial(conv_bn_relu, epsilon=1e-3, init=normal(0.01))


@layer
def naive_inception(
    scope: Scope, x: Float[Array, "n h w c"], *, f1x1: int, f3x3: int, f5x5: int
) -> Float[Array, "n h w c2"]:
    """1x1, 3x3 and 5x5 convolutions and the pooled input side by side (figure 2a).

    Every module is deeper than its input: c2 = f1x1 + f3x3 + f5x5 + c.
    """
    branches = [
        scope.child(conv_relu, "conv1x1")(x, f1x1, size=1),
        scope.child(conv_relu, "conv3x3")(x, f3x3, size=3),
        scope.child(conv_relu, "conv5x5")(x, f5x5, size=5),
        scope.child(max_pool, "pool")(x, 3, stride=1, padding=1),
    ]
    return jnp.concatenate(branches, axis=-1)


@layer
def inception(
    scope: Scope,
    x: Float[Array, "n h w c"],
    *,
    filters: Inception,
    unit: Layer = conv_relu,
    largest: int = 5,
) -> Float[Array, "n h w c2"]:
    """The same with 1x1 reductions before the large windows and after pooling (figure 2b).

    Args:
      unit: the convolution with what follows it.
      largest: the window of the convolution called 5x5.
    """
    small = scope.child(unit, "conv1x1")(x, filters.f1x1, size=1)
    middle = scope.child(unit, "conv3x3_reduce")(x, filters.f3x3_reduce, size=1)
    middle = scope.child(unit, "conv3x3")(middle, filters.f3x3, size=3)
    large = scope.child(unit, "conv5x5_reduce")(x, filters.f5x5_reduce, size=1)
    large = scope.child(unit, "conv5x5")(large, filters.f5x5, size=largest)
    pooled = scope.child(max_pool, "pool")(x, 3, stride=1, padding=1)
    pooled = scope.child(unit, "pool_proj")(pooled, filters.pool_proj, size=1)
    return jnp.concatenate([small, middle, large, pooled], axis=-1)


@layer
def auxiliary_classifier(
    scope: Scope,
    x: Float[Array, "n h w c"],
    num_classes: int,
    *,
    pool: Layer,
    unit: Layer,
    init: Callable,
    bias_init: Callable = zeros,
) -> Float[Array, "n classes"]:
    """Pool to 4x4, reduce to 128 channels, classify by two dense layers (section 5)."""
    x = scope.child(pool, "pool")(x)
    x = scope.child(unit, "conv")(x, 128, size=1)
    x = scope.child(flatten, "flatten")(x)
    x = scope.child(dense, "fc1")(x, 1024, init=init, bias_init=bias_init)
    x = scope.child(relu, "relu")(x)
    x = scope.child(dropout, "dropout")(x, 0.7)
    return scope.child(dense, "fc2")(x, num_classes, init=init)


def _inceptions(scope, x, module, pool4, auxiliary):
    """Run the nine modules, pool between them, and run the auxiliary classifiers if there are."""
    for name, filters in MODULES.items():
        body = partial(module, filters=filters)
        x = scope.child(rematerialized(scope, body), f"inception{name}")(x)
        if name == "3b":
            x = scope.child(max_pool, "pool3")(x, 3, stride=2, ceil_mode=True)
        if name == "4e":
            x = scope.child(max_pool, "pool4")(x, pool4, stride=2, ceil_mode=True)
        if auxiliary is not None and name in ("4a", "4d"):
            scope.child(auxiliary, "aux1" if name == "4a" else "aux2")(x)
    return scope.child(global_avg_pool, "pool5")(x)


def googlenet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    aux_heads: bool = False,
    dropout_rate: float = 0.4,
) -> Float[Array, "n classes"]:
    """Return the logits of the paper's network; `aux_heads` adds the auxiliary classifiers."""
    norm = partial(local_response_norm, size=5, alpha=1e-4, beta=0.75, k=1, mean_of_squares=True)
    auxiliary = partial(
        auxiliary_classifier,
        num_classes=num_classes,
        pool=partial(avg_pool, size=5, stride=3),
        unit=conv_relu,
        init=xavier,
        bias_init=constant(0.2),
    )
    x = scope.child(conv_relu, "conv1")(images, 64, size=7, stride=2)
    x = scope.child(max_pool, "pool1")(x, 3, stride=2, ceil_mode=True)
    x = scope.child(norm, "norm1")(x)
    x = scope.child(conv_relu, "conv2_reduce")(x, 64, size=1)
    x = scope.child(conv_relu, "conv2")(x, 192, size=3)
    x = scope.child(norm, "norm2")(x)
    x = scope.child(max_pool, "pool2")(x, 3, stride=2, ceil_mode=True)
    x = _inceptions(scope, x, inception, 3, auxiliary if aux_heads else None)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=xavier)


def googlenet_torchvision(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    aux_heads: bool = False,
    dropout_rate: float = 0.2,
    transform_input: bool = False,
) -> Float[Array, "n classes"]:
    """Return the logits of torchvision's network; `aux_heads` adds the auxiliary classifiers.

    Args:
      transform_input: the images are normalised by ImageNet's mean and deviation; bring them back
        to -1..1, as torchvision does for its published weights.
    """
    module = partial(inception, unit=_normalized_unit, largest=3)
    auxiliary = partial(
        auxiliary_classifier,
        num_classes=num_classes,
        pool=partial(adaptive_avg_pool, counts=4),
        unit=_normalized_unit,
        init=normal(0.01),
    )
    x = images
    if transform_input:
        mean, std = (jnp.asarray(each, x.dtype) for each in (IMAGENET_MEAN, IMAGENET_STD))
        x = (x * std + mean - 0.5) / 0.5
    x = scope.child(_normalized_unit, "conv1")(x, 64, size=7, stride=2)
    x = scope.child(max_pool, "pool1")(x, 3, stride=2, ceil_mode=True)
    x = scope.child(_normalized_unit, "conv2_reduce")(x, 64, size=1)
    x = scope.child(_normalized_unit, "conv2")(x, 192, size=3)
    x = scope.child(max_pool, "pool2")(x, 3, stride=2, ceil_mode=True)
    x = _inceptions(scope, x, module, 2, auxiliary if aux_heads else None)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=normal(0.01))


# our convolution -> torchvision's, in a module and in the stem
TORCHVISION_BRANCHES = {
    "conv1x1": "branch1",
    "conv3x3_reduce": "branch2.0",
    "conv3x3": "branch2.1",
    "conv5x5_reduce": "branch3.0",
    "conv5x5": "branch3.1",
    "pool_proj": "branch4.1",
}
TORCHVISION_STEM = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}


def torchvision_name(path: str) -> str:
    """Return torchvision's module: inception3a/conv3x3/bn -> inception3a.branch2.1.bn."""
    if path == "head":
        return "fc"
    if path.endswith(("/fc1", "/fc2")):
        return path.replace("/", ".")
    unit, kind = (path[: -len("/bn")], "bn") if path.endswith("/bn") else (path, "conv")
    outer, _, inner = unit.partition("/")
    if not inner:
        return f"{TORCHVISION_STEM[outer]}.{kind}"
    return f"{outer}.{TORCHVISION_BRANCHES.get(inner, inner)}.{kind}"


MODELS = {
    "googlenet": Entry(googlenet),
    "googlenet_torchvision": Entry(
        googlenet_torchvision,
        published_name=torchvision_name,
        unused=("aux1.", "aux2."),
        # what transform_input makes of ImageNet's mean and deviation
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
}
