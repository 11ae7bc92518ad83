"""ZFNet: AlexNet with smaller, denser filters at the start.

Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks". `zfnet` is figure 3;
`zfnet_512_1024_512` has these filters in layers 3 to 5 (table 2, last rows, and the lecture slides
that show ZFNet). Every pooling is followed by normalisation across maps, with AlexNet's constants.
Initialisation: the paper gives weights of 10^-2, taken here as normal with that deviation, and
biases of 0.
"""

from collections.abc import Sequence
from functools import partial

from flax.core import Scope
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from cnn_jax.layers import conv, dense, dropout, flatten, local_response_norm, max_pool, relu
from cnn_jax.models.entry import Entry

_conv = partial(conv, init=normal(0.01))
_dense = partial(dense, init=normal(0.01))


def zfnet(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    filters: Sequence[int] = (384, 384, 256),
    dropout_rate: float = 0.5,
) -> Float[Array, "n classes"]:
    """Return the logits. `filters`: those of the third, fourth and fifth convolution."""
    x = scope.child(_conv, "conv1")(images, 96, size=7, stride=2, padding=1)
    x = scope.child(relu, "relu1")(x)
    x = scope.child(max_pool, "pool1")(x, 3, stride=2, padding=1)
    x = scope.child(local_response_norm, "norm1")(x)
    x = scope.child(_conv, "conv2")(x, 256, size=5, stride=2, padding="valid")
    x = scope.child(relu, "relu2")(x)
    x = scope.child(max_pool, "pool2")(x, 3, stride=2, padding=1)
    x = scope.child(local_response_norm, "norm2")(x)
    for i, features in enumerate(filters, 3):
        x = scope.child(_conv, f"conv{i}")(x, features)
        x = scope.child(relu, f"relu{i}")(x)
    x = scope.child(max_pool, "pool5")(x, 3, stride=2)
    x = scope.child(flatten, "flatten")(x)
    for i in (6, 7):
        x = scope.child(_dense, f"fc{i}")(x, 4096)
        x = scope.child(relu, f"relu{i}")(x)
        x = scope.child(dropout, f"dropout{i}")(x, dropout_rate)
    return scope.child(_dense, "head")(x, num_classes)


MODELS = {
    "zfnet": Entry(zfnet),
    "zfnet_512_1024_512": Entry(partial(zfnet, filters=(512, 1024, 512))),
}
