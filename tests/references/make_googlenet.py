"""Write googlenet.npz from torchvision's GoogLeNet and from the paper's, see torch_parity.py."""

import torch
from torch import nn

from tests.references.torch_parity import torchvision_model, write

# Szegedy et al. 2015, table 1
TABLE = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x))


class Inception(nn.Module):
    def __init__(self, inputs, f1x1, f3x3_reduce, f3x3, f5x5_reduce, f5x5, pool_proj):
        super().__init__()
        self.conv1x1 = Unit(inputs, f1x1, 1)
        self.conv3x3_reduce = Unit(inputs, f3x3_reduce, 1)
        self.conv3x3 = Unit(f3x3_reduce, f3x3, 3)
        self.conv5x5_reduce = Unit(inputs, f5x5_reduce, 1)
        self.conv5x5 = Unit(f5x5_reduce, f5x5, 5)
        self.pool_proj = Unit(inputs, pool_proj, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [
            self.conv1x1(x),
            self.conv3x3(self.conv3x3_reduce(x)),
            self.conv5x5(self.conv5x5_reduce(x)),
            self.pool_proj(nn.functional.max_pool2d(x, 3, 1, 1)),
        ]
        return torch.cat(branches, 1)


class GoogLeNet(nn.Sequential):
    """The paper's network with normalisation as in Caffe's bvlc_googlenet."""

    def __init__(self, num_classes: int):
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        def norm() -> nn.Module:
            return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

        modules = {f"inception{name}": Inception(*row) for name, row in TABLE.items()}
        layers = [
            ("conv1", Unit(3, 64, 7, 2)),
            ("pool1", pool()),
            ("norm1", norm()),
            ("conv2_reduce", Unit(64, 64, 1)),
            ("conv2", Unit(64, 192, 3)),
            ("norm2", norm()),
            ("pool2", pool()),
        ]
        for name, module in modules.items():
            layers.append((name, module))
            if name in ("inception3b", "inception4e"):
                layers.append((f"pool{name[-2]}", pool()))
        layers += [
            ("pool5", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("head", nn.Linear(1024, num_classes)),
        ]
        for name, layer in layers:
            self.add_module(name, layer)


if __name__ == "__main__":
    write(
        "googlenet",
        {
            "googlenet": (GoogLeNet, 96),
            "googlenet_torchvision": (
                torchvision_model("googlenet", aux_logits=True, init_weights=False),
                96,
            ),
        },
    )
