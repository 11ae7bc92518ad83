"""Write wide_resnet.npz, see torch_parity.py.

The ImageNet networks are torchvision's. Those for CIFAR are written here after the authors'
github.com/szagoruyko/wide-residual-networks: pytorch/resnet.py and models/resnet-pre-act.lua.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from tests.references.torch_parity import torchvision_model, write


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    """A pre-activated block of convolutions with these sizes and outputs."""

    def __init__(self, inputs: int, sizes: list[int], outputs: list[int], stride: int):
        super().__init__()
        widths = [inputs, *outputs]
        self.bns, self.convs = [], []
        for i, size in enumerate(sizes):
            self.bns.append(nn.BatchNorm2d(widths[i]))
            self.convs.append(conv(widths[i], widths[i + 1], size, stride if i == 0 else 1))
            self.add_module(f"bn{i + 1}", self.bns[-1])
            self.add_module(f"conv{i + 1}", self.convs[-1])
        if inputs != outputs[-1]:
            self.shortcut = conv(inputs, outputs[-1], 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bns[0](x))
        y = self.convs[0](activated)
        for bn, convolution in zip(self.bns[1:], self.convs[1:], strict=True):
            y = convolution(F.relu(bn(y)))
        return y + (self.shortcut(activated) if hasattr(self, "shortcut") else x)


class WideResNet(nn.Module):
    def __init__(self, blocks: int, widen: int, bottleneck: bool, num_classes: int):
        super().__init__()
        self.stem = conv(3, 16, 3)
        self.blocks, inputs = [], 16
        for stage in range(3):
            width = 16 * widen * 2**stage
            outputs = [width, width, 4 * width] if bottleneck else [width, width]
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                block = Block(inputs, [1, 3, 1] if bottleneck else [3, 3], outputs, stride)
                self.add_module(f"stage{stage + 1}_block{i + 1}", block)
                self.blocks.append(block)
                inputs = outputs[-1]
        self.bn = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(F.relu(self.bn(x)).mean((2, 3)))


def wide_resnet(blocks: int, widen: int, bottleneck: bool = False) -> Callable[[int], nn.Module]:
    return lambda num_classes: WideResNet(blocks, widen, bottleneck, num_classes)


if __name__ == "__main__":
    write(
        "wide_resnet",
        {
            "wide_resnet50_2": (torchvision_model("wide_resnet50_2"), 64),
            "wide_resnet101_2": (torchvision_model("wide_resnet101_2"), 64),
            "wrn_16_8": (wide_resnet(2, 8), 16),
            "wrn_28_10": (wide_resnet(4, 10), 16),
            "wrn_40_4": (wide_resnet(6, 4), 16),
            "preact_resnet164": (wide_resnet(18, 1, bottleneck=True), 16),
        },
    )
