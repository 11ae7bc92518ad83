"""Classification with localisation: one network that names an object and bounds it.

A residual network with two heads. The class is read from the mean over all positions; the box, for
which the place matters, from the whole last map, by a dense layer more. Class-specific boxes are
one a class, as OverFeat's (Sermanet et al. 2014, section 4.2); a class-agnostic one is for all.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax.core import Scope
from jax.nn.initializers import zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from cnn_jax.layers import Layer, dense, flatten, global_avg_pool, relu
from cnn_jax.models import resnet
from cnn_jax.models.entry import Entry


def _in_the_middle(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Where boxes start: at random ones, far out, their loss is ten times that of the classes."""
    del key
    return jnp.tile(jnp.asarray([0.25, 0.25, 0.75, 0.75], dtype), shape[0] // 4)


def localizer(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    block: Layer,
    stage_sizes: Sequence[int],
    features: int = 64,
    neurons: int = 256,
    class_specific: bool = True,
) -> dict[str, Array]:
    """Return "logits" [n, classes], and "boxes" [n, classes, 4] or, agnostic, [n, 1, 4].

    A box is (x1, y1, x2, y2) in shares of the image's width and height.

    Args:
      features: channels of the first stage.
      neurons: of the box head's hidden layer.
    """
    x = resnet.stem(scope, images, features)
    x = resnet.stages(scope, x, block, stage_sizes, features)
    pooled = scope.child(global_avg_pool, "pool")(x)
    logits = scope.child(dense, "head")(pooled, num_classes)
    x = scope.child(flatten, "flatten")(x)
    x = scope.child(relu, "box_relu")(scope.child(dense, "box_fc")(x, neurons))
    count = num_classes if class_specific else 1
    boxes = scope.child(dense, "box_head")(x, 4 * count, init=zeros, bias_init=_in_the_middle)
    return {"logits": logits, "boxes": boxes.reshape(images.shape[0], -1, 4)}


def _entry(block: Layer, *stage_sizes: int) -> Entry:
    function = partial(localizer, block=block, stage_sizes=stage_sizes)
    return Entry(function, task="localization")


MODELS = {
    "localizer_resnet18": _entry(resnet.basic_block, 2, 2, 2, 2),
    "localizer_resnet50": _entry(resnet.bottleneck_block, 3, 4, 6, 3),
}
