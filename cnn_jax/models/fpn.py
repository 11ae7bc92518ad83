"""Backbones of detectors: a residual network's maps, as they are or as a feature pyramid."""

from collections.abc import Sequence

import numpy as np
from flax.core import Scope
from jax.nn.initializers import variance_scaling
from jaxtyping import Array, Float

from cnn_jax.layers import Layer, conv, tapped, with_flags
from cnn_jax.models import resnet

# torchvision's: uniform, of variance 1 / inputs
fpn_init = variance_scaling(1.0, "fan_in", "uniform")


def enlarge_to(
    x: Float[Array, "n h w c"], height: int, width: int
) -> Float[Array, "n height width c"]:
    """Return the nearest pixels of x on a finer grid."""
    rows = np.arange(height) * x.shape[1] // height
    columns = np.arange(width) * x.shape[2] // width
    return x[:, rows][:, :, columns]


def pyramid(
    scope: Scope, maps: Sequence[Float[Array, "n _h _w _c"]], features: int = 256
) -> list[Float[Array, "n _h _w features"]]:
    """Return maps of one width, each with what the coarser ones saw, and one coarser still.

    A 1x1 convolution of each map plus the enlarged sum above it, then a 3x3 convolution. The extra
    last map is every second pixel of the one before. Lin et al. 2017, section 3 and footnote 1.
    """
    above, outputs = None, []
    for number in range(len(maps), 0, -1):
        x = maps[number - 1]
        y = scope.child(conv, f"inner{number}")(x, features, size=1, init=fpn_init)
        if above is not None:
            y = y + enlarge_to(above, *y.shape[1:3])
        above = y
        output = scope.child(conv, f"output{number}")(y, features, size=3, init=fpn_init)
        outputs.insert(0, output)
    return [*outputs, tapped(scope, outputs[-1][:, ::2, ::2], "coarsest")]


def resnet_fpn(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    *,
    block: Layer = resnet.bottleneck_block,
    stage_sizes: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    features: int = 256,
    frozen_norms: bool = True,
    norm_epsilon: float = 1e-5,
) -> list[Float[Array, "n _h _w features"]]:
    """Return a residual network's pyramid: maps of stride 4, 8, 16, 32 and 64.

    Args:
      width: channels of the first stage's 3x3 convolutions.
      frozen_norms: batch norms are constants, see cnn_jax.layers.
    """

    def body(scope: Scope, x: Array) -> list[Array]:
        return resnet.feature_maps(scope, resnet.stem(scope, x), block, stage_sizes, width)

    if frozen_norms:
        body = with_flags(body, frozen_norms=True, norm_epsilon=norm_epsilon)
    return scope.child(pyramid, "fpn")(scope.child(body, "body")(images), features)


def resnet_map(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    *,
    block: Layer = resnet.bottleneck_block,
    stage_sizes: Sequence[int] = (3, 4, 6),
    width: int = 64,
    frozen_norms: bool = True,
) -> list[Float[Array, "n h2 w2 c"]]:
    """Return the last map of a residual network's first stages alone, as a list of one.

    Its stride is 4 after one stage and doubles with each. Arguments as of resnet_fpn.
    """

    def body(scope: Scope, x: Array) -> Array:
        return resnet.stages(scope, resnet.stem(scope, x), block, stage_sizes, width)

    if frozen_norms:
        body = with_flags(body, frozen_norms=True)
    return [scope.child(body, "body")(images)]


def torchvision_name(path: str) -> str:
    """Return torchvision's module for a backbone's path: fpn/inner2 -> fpn.inner_blocks.1.0.

    A backbone that torchvision does not have keeps its own names.
    """
    part, _, rest = path.partition("/")
    if part == "body":
        return f"body.{resnet.torchvision_name(rest)}"
    if part != "fpn":
        return path.replace("/", ".")
    kind, number = rest[:-1], int(rest[-1])
    return f"fpn.{'inner_blocks' if kind == 'inner' else 'layer_blocks'}.{number - 1}.0"
