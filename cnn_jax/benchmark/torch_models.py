"""The residual networks in plain PyTorch, and torchvision's models where it is installed."""

# pyright: reportMissingImports=false

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from cnn_jax import errors
from cnn_jax.benchmark.spec import Spec
from cnn_jax.errors import UsageError


class ConvBN(nn.Conv2d):
    """A convolution without bias, then batch normalisation, under the names of cnn_jax's layer."""

    def __init__(self, channels, features, size, stride=1):
        super().__init__(channels, features, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what comes out of both."""
        return self.bn(super().forward(x))


class Block(nn.Module):
    """A residual block of conv-BN pairs: two 3x3 ones, or a bottleneck.

    Args:
      strides: of each convolution.
      sizes: of each convolution's window.
      widths: output channels of each convolution.
      projects: a 1x1 convolution as shortcut where the shape changes; else zeros for new channels.
    """

    def __init__(self, channels, widths, sizes, strides, projects):
        super().__init__()
        inputs = (channels, *widths)
        for number, each in enumerate(zip(inputs, widths, sizes, strides, strict=False), start=1):
            self.add_module(f"conv{number}", ConvBN(*each))
        self.depth, self.features = len(widths), widths[-1]
        self.stride, self.new_channels = max(strides), self.features - channels
        self.shortcut = None
        if projects and (self.stride > 1 or self.new_channels):
            self.shortcut = ConvBN(channels, self.features, 1, self.stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, after its last ReLU."""
        y = x
        for number in range(1, self.depth + 1):
            y = self.get_submodule(f"conv{number}")(y)
            if number < self.depth:
                y = F.relu(y, inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1 or self.new_channels:
            half = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(y + x, inplace=True)


def _basic(channels: int, features: int, stride: int, projects: bool = True) -> Block:
    return Block(channels, (features, features), (3, 3), (stride, 1), projects)


def _bottleneck(channels: int, features: int, stride: int) -> Block:
    return Block(channels, (features, features, 4 * features), (1, 3, 1), (1, stride, 1), True)


def _bottleneck_v1(channels: int, features: int, stride: int) -> Block:
    return Block(channels, (features, features, 4 * features), (1, 3, 1), (stride, 1, 1), True)


def _stages(
    block: Callable, channels: int, sizes: tuple[int, ...], features: int
) -> dict[str, Block]:
    blocks = {}
    for stage, size in enumerate(sizes):
        for number in range(size):
            stride = 2 if stage and not number else 1
            made = block(channels, features * 2**stage, stride)
            blocks[f"stage{stage + 1}_block{number + 1}"] = made
            channels = made.features
    return blocks


def _resnet(
    stem: dict[str, nn.Module], blocks: dict[str, Block], num_classes: int
) -> nn.Sequential:
    features = list(blocks.values())[-1].features
    head = {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "head": nn.Linear(features, num_classes),
    }
    net = nn.Sequential(OrderedDict(stem | blocks | head))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _imagenet(block: Callable, *sizes: int) -> Callable[[int], nn.Module]:
    def build(num_classes):
        stem = {
            "stem": ConvBN(3, 64, 7, 2),
            "relu": nn.ReLU(inplace=True),
            "max_pool": nn.MaxPool2d(3, 2, 1),
        }
        return _resnet(stem, _stages(block, 64, sizes, 64), num_classes)

    return build


def _cifar(depth: int) -> Callable[..., nn.Module]:
    def build(num_classes, channels=3):
        block = partial(_basic, projects=False)
        stem = {"stem": ConvBN(channels, 16, 3), "relu": nn.ReLU(inplace=True)}
        sizes = ((depth - 2) // 6,) * 3
        return _resnet(stem, _stages(block, 16, sizes, 16), num_classes)

    return build


_IMAGENET = {
    "resnet18": _imagenet(_basic, 2, 2, 2, 2),
    "resnet34": _imagenet(_basic, 3, 4, 6, 3),
    "resnet50": _imagenet(_bottleneck, 3, 4, 6, 3),
    "resnet101": _imagenet(_bottleneck, 3, 4, 23, 3),
    "resnet152": _imagenet(_bottleneck, 3, 8, 36, 3),
    "resnet18_v1": _imagenet(_basic, 2, 2, 2, 2),
    "resnet34_v1": _imagenet(_basic, 3, 4, 6, 3),
    "resnet50_v1": _imagenet(_bottleneck_v1, 3, 4, 6, 3),
    "resnet101_v1": _imagenet(_bottleneck_v1, 3, 4, 23, 3),
    "resnet152_v1": _imagenet(_bottleneck_v1, 3, 8, 36, 3),
}
_CIFAR = {f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)}

# Their auxiliary heads are off by default here.
_WITH_AUXILIARY = ("googlenet", "inception_v3")


def create(name: str, num_classes: int, channels: int = 3) -> nn.Module:
    """Return the network of that name, torchvision's own where it is installed and has it.

    Args:
      channels: of the images; other than 3 for this file's CIFAR networks alone.

    Raises:
      UsageError: neither it nor this file has the network.
    """
    if name in _CIFAR:
        return _CIFAR[name](num_classes, channels)
    if channels != 3:
        raise UsageError(
            f"PyTorch's {name} takes 3 channels, not {channels}; compare another model"
        )
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another PyTorch
        if name in _IMAGENET:
            return _IMAGENET[name](num_classes)
        if isinstance(error, ImportError):
            reason = "is not installed"
        else:
            reason = f"does not fit PyTorch {torch.__version__}"
        raise UsageError(
            f"torchvision {reason}, and without it there are the ResNets alone; "
            f"install it, or leave --against=torch out for {name}"
        ) from None
    published = name.removesuffix("_torchvision")
    known = models.list_models(module=models)
    if published in known:
        options = {"aux_logits": False} if published in _WITH_AUXILIARY else {}
        if options:
            options["init_weights"] = True
        return models.get_model(published, num_classes=num_classes, **options)
    if name in _IMAGENET:
        return _IMAGENET[name](num_classes)
    raise errors.unknown("model of torchvision's", name, [*known, *_IMAGENET, *_CIFAR])


def memory_format(spec: Spec) -> torch.memory_format:
    """Return the format of the Spec's layout."""
    return torch.channels_last if spec.layout == "channels_last" else torch.contiguous_format
