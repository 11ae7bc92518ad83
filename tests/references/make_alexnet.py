"""Write alexnet.npz, see torch_parity.py.

torchvision's AlexNet is torchvision's; the paper's, the ungrouped one and ZFNet, of which PyTorch
has none, are written here. torch divides alpha by the window, hence 5e-4 for the paper's 1e-4.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from tests.references.torch_parity import torchvision_model, write


def norm() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def classifier(inputs: int, num_classes: int) -> dict[str, nn.Module]:
    return {
        "flatten": nn.Flatten(),
        "fc6": nn.Linear(inputs, 4096),
        "relu6": nn.ReLU(),
        "fc7": nn.Linear(4096, 4096),
        "relu7": nn.ReLU(),
        "head": nn.Linear(4096, num_classes),
    }


def alexnet(groups: int, norm_first: bool) -> Callable[[int], nn.Module]:
    """For images of 99 pixels: the dense layers see 2x2."""

    def reduce(i: int) -> list[tuple[str, nn.Module]]:
        pair = [(f"norm{i}", norm()), (f"pool{i}", nn.MaxPool2d(3, 2))]
        return pair if norm_first else pair[::-1]

    def build(num_classes: int) -> nn.Module:
        layers = [
            ("conv1", nn.Conv2d(3, 96, 11, 4)),
            ("relu1", nn.ReLU()),
            *reduce(1),
            ("conv2", nn.Conv2d(96, 256, 5, padding=2, groups=groups)),
            ("relu2", nn.ReLU()),
            *reduce(2),
            ("conv3", nn.Conv2d(256, 384, 3, padding=1)),
            ("relu3", nn.ReLU()),
            ("conv4", nn.Conv2d(384, 384, 3, padding=1, groups=groups)),
            ("relu4", nn.ReLU()),
            ("conv5", nn.Conv2d(384, 256, 3, padding=1, groups=groups)),
            ("relu5", nn.ReLU()),
            ("pool5", nn.MaxPool2d(3, 2)),
        ]
        return nn.Sequential(OrderedDict(layers) | classifier(256 * 2 * 2, num_classes))

    return build


def zfnet(f3: int, f4: int, f5: int) -> Callable[[int], nn.Module]:
    """For images of 96 pixels: the dense layers see 2x2."""

    def build(num_classes: int) -> nn.Module:
        layers = [
            ("conv1", nn.Conv2d(3, 96, 7, 2, padding=1)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(3, 2, padding=1)),
            ("norm1", norm()),
            ("conv2", nn.Conv2d(96, 256, 5, 2)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(3, 2, padding=1)),
            ("norm2", norm()),
            ("conv3", nn.Conv2d(256, f3, 3, padding=1)),
            ("relu3", nn.ReLU()),
            ("conv4", nn.Conv2d(f3, f4, 3, padding=1)),
            ("relu4", nn.ReLU()),
            ("conv5", nn.Conv2d(f4, f5, 3, padding=1)),
            ("relu5", nn.ReLU()),
            ("pool5", nn.MaxPool2d(3, 2)),
        ]
        return nn.Sequential(OrderedDict(layers) | classifier(f5 * 2 * 2, num_classes))

    return build


if __name__ == "__main__":
    write(
        "alexnet",
        {
            "alexnet": (alexnet(groups=1, norm_first=False), 99),
            "alexnet_grouped": (alexnet(groups=2, norm_first=True), 99),
            "alexnet_torchvision": (torchvision_model("alexnet"), 96),
            "zfnet": (zfnet(384, 384, 256), 96),
            "zfnet_512_1024_512": (zfnet(512, 1024, 512), 96),
        },
    )
