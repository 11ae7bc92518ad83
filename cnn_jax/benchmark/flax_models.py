"""Networks as one writes them in Flax Linen: what our compiled steps are compared with.

The residual networks are those of Flax's ImageNet example (examples/imagenet/models.py); the others
are the papers' networks from Linen's own layers, as torchvision has them. Each has as many
parameters as ours of that name.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

Layer = Callable[..., Any]


class _Network(nn.Module):
    """Convolutions without bias and batch norms of one dtype."""

    num_classes: int = 1000
    dtype: Any = jnp.float32

    def layers(self, train: bool, epsilon: float = 1e-5) -> tuple[Layer, Layer]:
        convolution = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=epsilon,
            dtype=self.dtype,
        )
        return convolution, norm

    def head(self, x, train, dropout=0.0):
        x = jnp.mean(x, axis=(1, 2))
        x = nn.Dropout(dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x)


class ResNet(_Network):
    """He et al. 2015 with the stride in the 3x3 convolution, and Xie et al. 2017 with groups."""

    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64

    @nn.compact
    def __call__(self, x, train: bool = True):
        conv, norm = self.layers(train)
        x = conv(64, (7, 7), (2, 2), padding=[(3, 3), (3, 3)])(x)
        x = nn.max_pool(nn.relu(norm()(x)), (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
        for stage, blocks in enumerate(self.stage_sizes):
            features = 64 * 2**stage
            outputs = 4 * features if self.bottleneck else features
            for block in range(blocks):
                strides = (2, 2) if stage > 0 and block == 0 else (1, 1)
                shortcut, y = x, x
                if self.bottleneck:
                    width = features * self.group_width // 64 * self.groups
                    y = nn.relu(norm()(conv(width, (1, 1))(y)))
                    grouped = partial(conv, feature_group_count=self.groups)
                    y = nn.relu(norm()(grouped(width, (3, 3), strides)(y)))
                    y = conv(outputs, (1, 1))(y)
                else:
                    y = nn.relu(norm()(conv(features, (3, 3), strides)(y)))
                    y = conv(features, (3, 3))(y)
                y = norm()(y)
                if shortcut.shape != y.shape:
                    shortcut = norm()(conv(outputs, (1, 1), strides)(shortcut))
                x = nn.relu(shortcut + y)
        return self.head(x, train)


class DenseNet(_Network):
    """Huang et al. 2017: DenseNet-BC, a layer's outputs joined to all before."""

    stage_sizes: Sequence[int] = (6, 12, 24, 16)
    growth: int = 32

    @nn.compact
    def __call__(self, x, train: bool = True):
        conv, norm = self.layers(train)
        x = conv(2 * self.growth, (7, 7), (2, 2), padding=[(3, 3), (3, 3)])(x)
        x = nn.max_pool(nn.relu(norm()(x)), (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
        for stage, layers in enumerate(self.stage_sizes):
            if stage > 0:
                x = conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            for _ in range(layers):
                y = conv(4 * self.growth, (1, 1))(nn.relu(norm()(x)))
                y = conv(self.growth, (3, 3))(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
        return self.head(nn.relu(norm()(x)), train)


class MobileNet(_Network):
    """Sandler et al. 2018 (MobileNetV2) and, with excitation, Tan & Le 2019 (EfficientNet-B0).

    stages: (expansion, kernel's side, stride of the first block, features, blocks).
    """

    stages: Sequence[tuple[int, int, int, int, int]] = ()
    activation: Callable = nn.relu6
    excitation: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool = True):
        conv, norm = self.layers(train)
        x = self.activation(norm()(conv(32, (3, 3), (2, 2), padding=[(1, 1), (1, 1)])(x)))
        done, count = 0, sum(stage[-1] for stage in self.stages)
        for expansion, side, stride, features, blocks in self.stages:
            for block in range(blocks):
                inputs, y, strides = x.shape[-1], x, 1 if block else stride
                wide = expansion * inputs
                if expansion > 1:
                    y = self.activation(norm()(conv(wide, (1, 1))(y)))
                depthwise = partial(conv, feature_group_count=wide, padding=side // 2)
                y = self.activation(norm()(depthwise(wide, (side, side), strides)(y)))
                if self.excitation:
                    z = jnp.mean(y, axis=(1, 2), keepdims=True)
                    z = nn.Conv(max(1, inputs // 4), (1, 1), dtype=self.dtype)(z)
                    z = nn.Conv(wide, (1, 1), dtype=self.dtype)(self.activation(z))
                    y = y * nn.sigmoid(z)
                y = norm()(conv(features, (1, 1))(y))
                if y.shape == x.shape:
                    rate = self.drop_path * done / count
                    y = x + nn.Dropout(rate, (1, 2, 3), deterministic=not train)(y)
                x, done = y, done + 1
        x = self.activation(norm()(conv(1280, (1, 1))(x)))
        return self.head(x, train, 0.2)


class ConvNeXt(_Network):
    """Liu et al. 2022, of which no layer has batch statistics."""

    widths: Sequence[int] = (96, 192, 384, 768)
    stage_sizes: Sequence[int] = (3, 3, 9, 3)
    drop_path: float = 0.1

    @nn.compact
    def __call__(self, x, train: bool = True):
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        conv, dense = (partial(layer, dtype=self.dtype) for layer in (nn.Conv, nn.Dense))
        done, last = 0, sum(self.stage_sizes) - 1
        for stage, (width, blocks) in enumerate(zip(self.widths, self.stage_sizes, strict=True)):
            if stage == 0:
                x = norm()(conv(width, (4, 4), (4, 4))(x))
            else:
                x = conv(width, (2, 2), (2, 2))(norm()(x))
            for _ in range(blocks):
                y = norm()(conv(width, (7, 7), feature_group_count=width)(x))
                y = dense(width)(nn.gelu(dense(4 * width)(y), approximate=False))
                scale = self.param(f"scale{done}", nn.initializers.constant(1e-6), (width,))
                y = y * scale.astype(self.dtype)
                rate = self.drop_path * done / last
                x = x + nn.Dropout(rate, (1, 2, 3), deterministic=not train)(y)
                done += 1
        return dense(self.num_classes)(norm()(jnp.mean(x, axis=(1, 2))))


_V2 = (
    *((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 3, 2, 32, 3), (6, 3, 2, 64, 4)),
    *((6, 3, 1, 96, 3), (6, 3, 2, 160, 3), (6, 3, 1, 320, 1)),
)
_B0 = (
    *((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)),
    *((6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)),
)

# the name of ours -> f(num_classes=..., dtype=...) -> the network
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNet,
    "resnet101": partial(ResNet, stage_sizes=(3, 4, 23, 3)),
    "resnet152": partial(ResNet, stage_sizes=(3, 8, 36, 3)),
    "resnext50_32x4d": partial(ResNet, groups=32, group_width=4),
    "densenet121": DenseNet,
    "convnext_tiny": ConvNeXt,
    "mobilenet_v2": partial(MobileNet, stages=_V2),
    "efficientnet_b0": partial(
        MobileNet, stages=_B0, activation=nn.swish, excitation=True, drop_path=0.2
    ),
}
