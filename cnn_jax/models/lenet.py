"""LeNet-5: convolution, detector and pooling in turn, then dense layers.

LeCun et al. 1998, "Gradient-based learning applied to document recognition", in today's form:
rectified units, maximum pooling, every map of C3 seeing every map of S2.
"""

from collections.abc import Sequence

from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import conv, dense, flatten, max_pool, relu
from cnn_jax.models.entry import Entry


def lenet5(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    filters: Sequence[int] = (6, 16),
    neurons: Sequence[int] = (120, 84),
) -> Float[Array, "n classes"]:
    """Return the logits. 61,706 parameters at 32x32x1 and ten classes, as in the paper's table."""
    x = images
    for i, features in enumerate(filters, 1):
        x = scope.child(conv, f"conv{i}")(x, features, size=5, padding="valid")
        x = scope.child(relu, f"relu{i}")(x)
        x = scope.child(max_pool, f"pool{i}")(x, 2)
    x = scope.child(flatten, "flatten")(x)
    for i, features in enumerate(neurons, len(filters) + 1):
        x = scope.child(dense, f"fc{i}")(x, features)
        x = scope.child(relu, f"relu{i}")(x)
    return scope.child(dense, "head")(x, num_classes)


MODELS = {
    "lenet5": Entry(
        lenet5,
        image_size=32,
        channels=1,
        num_classes=10,
        resize=32,
        mean=(0.1307,),  # of MNIST
        std=(0.3081,),
    )
}
