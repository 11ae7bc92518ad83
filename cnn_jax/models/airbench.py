"""airbench: CIFAR-10 in seconds.

Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", and the networks of
github.com/KellerJordan/cifar10-airbench, which descend from Page's ResNet-9 by way of hlb-CIFAR10.
A 2x2 convolution that whitens patches (see cnn_jax.training.whitening), then three groups:

  airbench94   convolutions of 64, 256 and 256 channels, two a group   (airbench94_muon.py)
  airbench95   128, 384, 384, two a group                              (legacy/airbench95.py)
  airbench96   128, 384, 512, three a group, the last two residual     (legacy/airbench96.py)

Initialisation as there: a group's convolution passes its inputs on unchanged in its first filters,
the others are uniform within 1 / sqrt(inputs); the head has unit variance. Trained there with the
scales of the norms and the whitening kernel fixed: --freeze='whiten/kernel|.*/scale'.
"""

import re
from collections.abc import Sequence
from functools import partial
from math import sqrt

import jax
import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import (
    batch_norm,
    conv,
    dense,
    flatten,
    gelu,
    layer,
    lecun_uniform,
    max_pool,
    rematerialized,
)
from cnn_jax.models.entry import Entry


def _passing_on(key, shape, dtype):
    """The first filters are those of the identity."""
    height, width, inputs, outputs = shape
    kernel = lecun_uniform(key, shape, dtype)
    identity = jnp.zeros((height, width, inputs, inputs), dtype)
    identity = identity.at[height // 2, width // 2].set(jnp.eye(inputs, dtype=dtype))
    return jnp.concatenate([identity, kernel[..., inputs:]], axis=-1)[..., :outputs]


def _unit_variance(key, shape, dtype):
    kernel = lecun_uniform(key, shape, dtype)
    return kernel / kernel.std(ddof=1)


def _uniform(bound):
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


@layer
def group(
    scope: Scope, x: Float[Array, "n h w c"], *, features: int, depth: int, momentum: float
) -> Float[Array, "n h2 w2 features"]:
    """3x3 convolutions, the first pooled; of three, the last two are residual."""
    maps = []
    for i in range(1, depth + 1):
        x = scope.child(conv, f"conv{i}")(x, features, bias=False, init=_passing_on)
        if i == 1:
            x = scope.child(max_pool, "pool")(x, 2)
        x = scope.child(batch_norm, f"bn{i}")(x, epsilon=1e-12, momentum=momentum)
        if i == 3:
            x = x + maps[0]
        x = scope.child(gelu, f"gelu{i}")(x)
        maps.append(x)
    return x


def airbench(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    widths: Sequence[int],
    scale: float,
    depth: int = 2,
    momentum: float = 0.6,
) -> Float[Array, "n classes"]:
    """Return the logits. At 32x32 the last pooling leaves one place.

    Args:
      scale: of the logits.
      depth: convolutions a group.
      momentum: of the running averages.
    """
    inputs = 2 * 2 * images.shape[-1]
    x = scope.child(conv, "whiten")(
        images, 2 * inputs, size=2, padding="valid", bias_init=_uniform(1 / sqrt(inputs))
    )
    x = scope.child(gelu, "gelu")(x)
    for i, features in enumerate(widths, 1):
        block = partial(group, features=features, depth=depth, momentum=momentum)
        x = scope.child(rematerialized(scope, block), f"group{i}")(x)
    x = scope.child(max_pool, "pool")(x, 3)
    x = scope.child(flatten, "flatten")(x)
    return scale * scope.child(dense, "head")(x, num_classes, bias=False, init=_unit_variance)


def published_name(path: str) -> str:
    """Return the name in airbench94_muon.py."""
    return re.sub(r"group(\d)/", r"layers.\1/", path).replace("bn", "norm").replace("/", ".")


def _cifar(*widths: int, scale: float, **settings: float) -> Entry:
    return Entry(
        partial(airbench, widths=widths, scale=scale, **settings),
        image_size=32,
        num_classes=10,
        published_name=published_name,
        resize=32,
        mean=(0.4914, 0.4822, 0.4465),  # of CIFAR-10
        std=(0.2470, 0.2435, 0.2616),
    )


MODELS = {
    "airbench94": _cifar(64, 256, 256, scale=1 / 256),
    "airbench95": _cifar(128, 384, 384, scale=1 / 9),
    "airbench96": _cifar(128, 384, 512, scale=1 / 9, depth=3, momentum=0.9),
}
