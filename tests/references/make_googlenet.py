"""Write googlenet.npz from torchvision's GoogLeNet and from the paper's, see torch_parity.py.

The logits are the network's and both auxiliary classifiers', side by side; of the naive module,
which is no network, they are its output, channels first.
"""

import torch
import torchvision
from torch import nn

from tests.references.torch_parity import write

SIZE = 96  # on it the paper's auxiliary classifiers pool to one pixel

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


class NaiveInception(nn.Module):
    def __init__(self, inputs: int, f1x1: int, f3x3: int, f5x5: int):
        super().__init__()
        self.conv1x1 = Unit(inputs, f1x1, 1)
        self.conv3x3 = Unit(inputs, f3x3, 3)
        self.conv5x5 = Unit(inputs, f5x5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.max_pool2d(x, 3, 1, 1)
        return torch.cat([self.conv1x1(x), self.conv3x3(x), self.conv5x5(x), pooled], 1)


class Auxiliary(nn.Module):
    """Section 5; one pixel is left after pooling images of SIZE."""

    def __init__(self, inputs: int, num_classes: int):
        super().__init__()
        self.conv = Unit(inputs, 128, 1)
        self.fc1 = nn.Linear(128, 1024)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(nn.functional.avg_pool2d(x, 5, 3)).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


class GoogLeNet(nn.Module):
    """The paper's network with normalisation as in Caffe's bvlc_googlenet."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = Unit(3, 64, 7, 2)
        self.conv2_reduce = Unit(64, 64, 1)
        self.conv2 = Unit(64, 192, 3)
        for name, row in TABLE.items():
            self.add_module(f"inception{name}", Inception(*row))
        self.aux1 = Auxiliary(512, num_classes)
        self.aux2 = Auxiliary(528, num_classes)
        self.head = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        x = norm(pool(self.conv1(x)))
        x = pool(norm(self.conv2(self.conv2_reduce(x))))
        auxiliary = []
        for name in TABLE:
            x = self.get_submodule(f"inception{name}")(x)
            if name in ("3b", "4e"):
                x = pool(x)
            if name in ("4a", "4d"):
                auxiliary.append((self.aux1 if name == "4a" else self.aux2)(x))
        return torch.cat([self.head(x.mean((2, 3))), *auxiliary], 1)


class TorchvisionGoogLeNet(torchvision.models.GoogLeNet):
    """torchvision's, whose auxiliary classifiers run in evaluation, too."""

    def __init__(self, num_classes: int):
        super().__init__(num_classes, aux_logits=True, init_weights=False)
        self.seen = {}
        self.inception4a.register_forward_hook(lambda *call: self.seen.update(aux1=call[-1]))
        self.inception4d.register_forward_hook(lambda *call: self.seen.update(aux2=call[-1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(x)
        logits = super().forward(x)
        return torch.cat([logits, self.aux1(self.seen["aux1"]), self.aux2(self.seen["aux2"])], 1)


if __name__ == "__main__":
    write(
        "googlenet",
        {
            "googlenet": (GoogLeNet, SIZE),
            "googlenet_torchvision": (TorchvisionGoogLeNet, SIZE),
            "naive_inception": (lambda num_classes: NaiveInception(3, 4, 5, 6), 8),
        },
    )
