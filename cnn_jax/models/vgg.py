"""VGG: stacks of 3x3 convolutions between 2x2 poolings.

Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition",
table 1: configurations A, B, D and E. `_bn` normalises after each convolution, which torchvision
added. Weights are torchvision's; initialisation too (He et al.'s by the outputs, dense weights
normal with deviation 0.01), since the paper's needs shallower networks to start from. Images of
other sizes are averaged to 7x7 before the dense layers, as there; at 224 pixels that does nothing.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from flax.core import Scope
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from cnn_jax.layers import (
    adaptive_avg_pool,
    batch_norm,
    conv,
    dense,
    dropout,
    flatten,
    max_pool,
    relu,
)
from cnn_jax.models.entry import Entry, Timm

FEATURES = (64, 128, 256, 512, 512)


def convolutions(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    stage_sizes: Sequence[int],
    normalized: bool = False,
) -> Float[Array, "n h2 w2 512"]:
    """Return what the last convolution sees, a sixteenth of the size: pooled between the stages."""
    x = images
    for stage, (convolutions, features) in enumerate(zip(stage_sizes, FEATURES, strict=True), 1):
        if stage > 1:
            x = scope.child(max_pool, f"pool{stage - 1}")(x, 2)
        for i in range(1, convolutions + 1):
            x = scope.child(conv, f"conv{stage}_{i}")(x, features)
            if normalized:
                x = scope.child(batch_norm, f"bn{stage}_{i}")(x)
            x = scope.child(relu, f"relu{stage}_{i}")(x)
    return x


def vgg(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    stage_sizes: Sequence[int],
    normalized: bool = False,
    dropout_rate: float = 0.5,
) -> Float[Array, "n classes"]:
    """Return the logits. `stage_sizes`: the convolutions before each of the five poolings."""
    x = convolutions(scope, images, stage_sizes, normalized)
    x = scope.child(max_pool, "pool5")(x, 2)
    x = scope.child(adaptive_avg_pool, "pool")(x, 7)
    x = scope.child(flatten, "flatten")(x)
    for i in (6, 7):
        x = scope.child(dense, f"fc{i}")(x, 4096, init=normal(0.01))
        x = scope.child(relu, f"relu{i}")(x)
        x = scope.child(dropout, f"dropout{i}")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=normal(0.01))


def torchvision_name(path: str, stage_sizes: Sequence[int], normalized: bool) -> str:
    """Return torchvision's module for a scope path: it counts all that lies before the pools.

    conv1_1 -> features.0, conv1_2 -> features.2 (or .3, and bn1_2 -> features.4), fc6 ->
    classifier.0.
    """
    classifier = {"fc6": "classifier.0", "fc7": "classifier.3", "head": "classifier.6"}
    if path in classifier:
        return classifier[path]
    stage, i = (int(number) for number in path.lstrip("convb").split("_"))
    modules = 3 if normalized else 2
    before = sum(modules * size + 1 for size in stage_sizes[: stage - 1]) + modules * (i - 1)
    return f"features.{before + path.startswith('bn')}"


def timm_name(path: str, **form: Any) -> str:
    """Return timm's module, whose dense layers are convolutions: fc6 -> pre_logits.fc1."""
    classifier = {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "head": "head.fc"}
    return classifier[path] if path in classifier else torchvision_name(path, **form)


def _entry(*stage_sizes: int, normalized: bool = False) -> Entry:
    form = {"stage_sizes": stage_sizes, "normalized": normalized}
    model = f"vgg{sum(stage_sizes) + 3}{'_bn' * normalized}"
    return Entry(
        partial(vgg, **form),
        published_name=partial(torchvision_name, **form),
        timm=Timm(model, partial(timm_name, **form)),
    )


MODELS = {
    "vgg11": _entry(1, 1, 2, 2, 2),
    "vgg13": _entry(2, 2, 2, 2, 2),
    "vgg16": _entry(2, 2, 3, 3, 3),
    "vgg19": _entry(2, 2, 4, 4, 4),
    "vgg11_bn": _entry(1, 1, 2, 2, 2, normalized=True),
    "vgg13_bn": _entry(2, 2, 2, 2, 2, normalized=True),
    "vgg16_bn": _entry(2, 2, 3, 3, 3, normalized=True),
    "vgg19_bn": _entry(2, 2, 4, 4, 4, normalized=True),
}
