"""ConvNeXt: a ResNet brought, step by step, to the design of vision transformers.

Liu et al. 2022, "A ConvNet for the 2020s", section 2 and figure 4. Names, initialisation and
rates of stochastic depth are torchvision's.
"""

import re
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax.core import Scope
from jax.nn.initializers import constant, normal, ones, zeros
from jaxtyping import Array, Float

from cnn_jax.layers import (
    chain,
    conv,
    dense,
    gelu,
    global_avg_pool,
    layer,
    parameter,
    scaled_dense,
    stochastic_depth,
)
from cnn_jax.models.entry import Entry, Timm

# the reference truncates at 2, a hundred standard deviations away
weight_init = normal(0.02)


@layer
def layer_norm(
    scope: Scope, x: Float[Array, "*n c"], *, epsilon: float = 1e-6
) -> Float[Array, "*n c"]:
    """Normalise each position by the mean and variance of its channels, at least in float32.

    Of bfloat16 both are taken in one pass, the variance about zero: where the mean is so large that
    this cancels in float32, bfloat16 has rounded off more before.

    Parameters: scale and bias [c]. Ba et al. 2016.
    """
    scale = parameter(scope, "scale", ones, x.shape[-1:])
    bias = parameter(scope, "bias", zeros, x.shape[-1:])
    precise = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = precise.mean(-1, keepdims=True)
    centred = precise - mean
    if x.dtype == jnp.bfloat16:
        variance = jnp.maximum(jnp.square(precise).mean(-1, keepdims=True) - jnp.square(mean), 0)
    else:
        variance = jnp.square(centred).mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon) * scale + bias).astype(x.dtype)


@layer
def convnext_block(
    scope: Scope, x: Float[Array, "n h w c"], *, layer_scale: float, drop_rate: float
) -> Float[Array, "n h w c"]:
    """7x7 depthwise, layer norm, 1x1 to four times as many channels, GELU, 1x1 back; scaled."""
    channels = x.shape[-1]
    y = scope.child(conv, "depthwise")(x, channels, size=7, groups=channels, init=weight_init)
    y = scope.child(layer_norm, "norm")(y)
    y = scope.child(dense, "expand")(y, 4 * channels, init=weight_init)
    y = scope.child(gelu, "gelu")(y)
    # with three axes, as the published weights have it
    scale = parameter(scope, "layer_scale", constant(layer_scale), (1, 1, channels))
    y = scaled_dense(scope, "project", y, channels, scale.reshape(-1), init=weight_init)
    return x + scope.child(stochastic_depth, "drop")(y, drop_rate)


def convnext(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    widths: Sequence[int],
    stage_sizes: Sequence[int],
    stochastic_depth_rate: float,
    layer_scale: float = 1e-6,
) -> Float[Array, "n classes"]:
    """Return the logits.

    Args:
      widths, stage_sizes: channels and blocks of each stage.
      stochastic_depth_rate: of the last block; it grows linearly from 0 at the first.
      layer_scale: each residual branch starts at this multiple.
    """
    downsample = partial(conv, padding="valid", init=weight_init)
    done, total = 0, sum(stage_sizes)
    x = scope.child(downsample, "stem")(images, widths[0], size=4, stride=4)
    x = scope.child(layer_norm, "stem_norm")(x)
    for stage, (features, blocks) in enumerate(zip(widths, stage_sizes, strict=True), 1):
        if stage > 1:
            x = scope.child(layer_norm, f"stage{stage}_norm")(x)
            x = scope.child(downsample, f"stage{stage}_conv")(x, features, size=2, stride=2)
        bodies = {}
        for i in range(blocks):
            rate = stochastic_depth_rate * done / max(total - 1, 1)
            body = partial(convnext_block, layer_scale=layer_scale, drop_rate=rate)
            bodies[f"stage{stage}_block{i + 1}"] = body
            done += 1
        x = chain(scope, x, bodies)
    x = scope.child(global_avg_pool, "pool")(x)
    x = scope.child(layer_norm, "norm")(x)
    return scope.child(dense, "head")(x, num_classes, init=weight_init)


_OUTER = {"stem": "features.0.0", "stem_norm": "features.0.1"}
_OUTER |= {"norm": "classifier.0", "head": "classifier.2"}
_INNER = {"depthwise": ".block.0", "norm": ".block.2", "expand": ".block.3", "project": ".block.5"}


def torchvision_name(path: str) -> str:
    """Return torchvision's module: stage2_block1/expand -> features.3.0.block.3.

    features: the stem, then stages and downsamplings in turn.
    """
    if path in _OUTER:
        return _OUTER[path]
    block, _, inner = path.partition("/")
    stage, kind, number = re.fullmatch(r"stage(\d+)_([a-z]+)(\d*)", block).groups()
    if kind == "block":
        return f"features.{2 * int(stage) - 1}.{int(number) - 1}{_INNER.get(inner, '')}"
    return f"features.{2 * int(stage) - 2}.{('norm', 'conv').index(kind)}"


_TIMM_OUTER = {"stem": "stem.0", "stem_norm": "stem.1", "norm": "head.norm", "head": "head.fc"}
_TIMM_INNER = {
    "depthwise": ".conv_dw",
    "norm": ".norm",
    "expand": ".mlp.fc1",
    "project": ".mlp.fc2",
}


def timm_name(path: str) -> str:
    """Return timm's module: stage2_block1/expand -> stages.1.blocks.0.mlp.fc1."""
    if path in _TIMM_OUTER:
        return _TIMM_OUTER[path]
    block, _, inner = path.partition("/")
    stage, kind, number = re.fullmatch(r"stage(\d+)_([a-z]+)(\d*)", block).groups()
    if kind == "block":
        return f"stages.{int(stage) - 1}.blocks.{int(number) - 1}{_TIMM_INNER.get(inner, '')}"
    return f"stages.{int(stage) - 1}.downsample.{('norm', 'conv').index(kind)}"


def _entry(
    size: str,
    widths: Sequence[int],
    stage_sizes: Sequence[int],
    stochastic_depth_rate: float,
    resize: int,
) -> Entry:
    function = partial(
        convnext,
        widths=widths,
        stage_sizes=stage_sizes,
        stochastic_depth_rate=stochastic_depth_rate,
    )
    timm = Timm(f"convnext_{size}", timm_name, {"layer_scale": "gamma"})
    return Entry(function, published_name=torchvision_name, timm=timm, resize=resize)


MODELS = {
    "convnext_tiny": _entry("tiny", (96, 192, 384, 768), (3, 3, 9, 3), 0.1, 236),
    "convnext_small": _entry("small", (96, 192, 384, 768), (3, 3, 27, 3), 0.4, 230),
    "convnext_base": _entry("base", (128, 256, 512, 1024), (3, 3, 27, 3), 0.5, 232),
    "convnext_large": _entry("large", (192, 384, 768, 1536), (3, 3, 27, 3), 0.5, 232),
}
