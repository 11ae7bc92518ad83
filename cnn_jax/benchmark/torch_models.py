"""The residual networks in plain PyTorch, and torchvision's models where it is installed."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from cnn_jax import errors
from cnn_jax.errors import UsageError


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
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, size, stride, size // 2, bias=False)
            for i, o, size, stride in zip(inputs, widths, sizes, strides, strict=False)
        )
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, widths))
        self.stride, self.new_channels = max(strides), widths[-1] - channels
        self.shortcut = None
        if projects and (self.stride > 1 or self.new_channels):
            self.shortcut = _conv_bn(channels, widths[-1], 1, self.stride)

    def forward(self, x):
        y = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True), start=1):
            y = norm(conv(y))
            if number < len(self.convs):
                y = F.relu(y, inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1 or self.new_channels:
            half = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(y + x, inplace=True)


def _conv_bn(channels: int, features: int, size: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, features, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(features))


def _basic(channels: int, features: int, stride: int, projects: bool = True) -> Block:
    return Block(channels, (features, features), (3, 3), (stride, 1), projects)


def _bottleneck(channels: int, features: int, stride: int) -> Block:
    return Block(channels, (features, features, 4 * features), (1, 3, 1), (1, stride, 1), True)


def _bottleneck_v1(channels: int, features: int, stride: int) -> Block:
    return Block(channels, (features, features, 4 * features), (1, 3, 1), (stride, 1, 1), True)


def _stages(block: Callable, channels: int, sizes: tuple[int, ...], features: int) -> list[Block]:
    blocks = []
    for stage, size in enumerate(sizes):
        for number in range(size):
            stride = 2 if stage and not number else 1
            blocks.append(block(channels, features * 2**stage, stride))
            channels = blocks[-1].norms[-1].num_features
    return blocks


def _resnet(stem: list[nn.Module], blocks: list[Block], num_classes: int) -> nn.Sequential:
    head = nn.Linear(blocks[-1].norms[-1].num_features, num_classes)
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _imagenet(block: Callable, *sizes: int) -> Callable[[int], nn.Module]:
    def build(num_classes):
        stem = [_conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        return _resnet(stem, _stages(block, 64, sizes, 64), num_classes)

    return build


def _cifar(depth: int) -> Callable[[int], nn.Module]:
    def build(num_classes):
        def block(channels, features, stride):
            return _basic(channels, features, stride, projects=False)

        stem = [_conv_bn(3, 16, 3, 1), nn.ReLU(inplace=True)]
        sizes = ((depth - 2) // 6,) * 3
        return _resnet(stem, _stages(block, 16, sizes, 16), num_classes)

    return build


RESNETS: dict[str, Callable[[int], nn.Module]] = {
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
    **{f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)},
}

# Their auxiliary heads are off by default here.
_WITH_AUXILIARY = ("googlenet", "inception_v3")


def create(name: str, num_classes: int) -> nn.Module:
    """Return the network of that name, torchvision's own where it is installed and has it.

    Raises:
      UsageError: neither it nor this file has the network.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another PyTorch
        if name in RESNETS:
            return RESNETS[name](num_classes)
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
    if name in RESNETS:
        return RESNETS[name](num_classes)
    raise errors.unknown("model of torchvision's", name, [*known, *RESNETS])
