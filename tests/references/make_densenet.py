"""Write densenet.npz from torchvision's DenseNets, see torch_parity.py.

The CIFAR networks are torchvision's class with the authors' stem (models/densenet.lua), the plain
ones with dense layers and transitions of their own.
"""

from collections.abc import Callable

import torch
from torch import nn

from tests.references.torch_parity import torchvision_model, write


def densenet(growth: int, *block_sizes: int) -> Callable[[int], nn.Module]:
    from torchvision.models import DenseNet

    return lambda num_classes: DenseNet(growth, block_sizes, 2 * growth, num_classes=num_classes)


def cifar_bc(depth: int, growth: int) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        model = densenet(growth, *[(depth - 4) // 6] * 3)(num_classes)
        model.features.conv0 = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
        for layer in ("norm0", "relu0", "pool0"):
            delattr(model.features, layer)
        return model

    return build


class PlainLayer(nn.Module):
    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv1(torch.relu(self.norm1(x)))], 1)


class PlainDenseNet(nn.Module):
    def __init__(self, depth: int, growth: int, num_classes: int):
        super().__init__()
        layers, channels = (depth - 4) // 3, 16
        features = [("conv0", nn.Conv2d(3, channels, 3, padding=1, bias=False))]
        for i in (1, 2, 3):
            block = nn.Sequential()
            for j in range(1, layers + 1):
                block.add_module(f"denselayer{j}", PlainLayer(channels, growth))
                channels += growth
            features.append((f"denseblock{i}", block))
            if i < 3:
                transition = nn.Sequential()
                transition.add_module("norm", nn.BatchNorm2d(channels))
                transition.add_module("relu", nn.ReLU())
                transition.add_module("conv", nn.Conv2d(channels, channels, 1, bias=False))
                transition.add_module("pool", nn.AvgPool2d(2))
                features.append((f"transition{i}", transition))
        self.features = nn.Sequential()
        for name, module in [*features, ("norm5", nn.BatchNorm2d(channels))]:
            self.features.add_module(name, module)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


if __name__ == "__main__":
    write(
        "densenet",
        {
            "densenet121": (torchvision_model("densenet121"), 64),
            "densenet161": (torchvision_model("densenet161"), 64),
            "densenet169": (torchvision_model("densenet169"), 64),
            "densenet201": (torchvision_model("densenet201"), 64),
            "densenet264": (densenet(32, 6, 12, 64, 48), 64),
            "densenet_40_12": (lambda num_classes: PlainDenseNet(40, 12, num_classes), 16),
            "densenet_bc_100_12": (cifar_bc(100, 12), 16),
        },
    )
