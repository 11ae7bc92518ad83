"""Published errors of the registered networks, and what a lecture's slides state of them.

Errors are in percent. Every row names its protocol and its source; a network without a row has no
number here that was checked.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """An error of a network as someone measured it."""

    top1_error: float | None  # percent
    top5_error: float | None
    protocol: str
    source: str


def _accuracy(top1: float, top5: float | None = None, *, source: str) -> Published:
    errors = (None if a is None else round(100 - a, 3) for a in (top1, top5))
    return Published(*errors, protocol="ImageNet validation, one centre crop", source=source)


_V1 = "torchvision, IMAGENET1K_V1 weights"
_TIMM = "timm, its weights of this name"
_CIFAR = "CIFAR-10 test"

PUBLISHED: dict[str, Published] = {
    "alexnet_torchvision": _accuracy(56.522, 79.066, source=_V1),
    "vgg16": _accuracy(71.592, 90.382, source=_V1),
    "vgg19": _accuracy(72.376, 90.876, source=_V1),
    "googlenet_torchvision": _accuracy(69.778, 89.530, source=_V1),
    "googlenet": Published(
        None, 10.07, "ImageNet validation, one crop of one model", "Szegedy et al. 2015"
    ),
    "resnet18": _accuracy(69.758, source=_V1),
    "resnet34": _accuracy(73.314, source=_V1),
    "resnet50": _accuracy(76.130, 92.86, source=_V1),
    "resnet101": _accuracy(77.374, source=_V1),
    "resnet152": _accuracy(78.312, source=_V1),
    "wide_resnet50_2": _accuracy(78.468, source=_V1),
    "resnext50_32x4d": _accuracy(77.618, source=_V1),
    "resnext101_32x8d": _accuracy(79.312, source=_V1),
    "densenet121": _accuracy(74.434, source=_V1),
    "densenet169": _accuracy(75.600, source=_V1),
    "densenet201": _accuracy(76.896, source=_V1),
    "mobilenet_v2": _accuracy(71.878, source=_V1),
    "mobilenet_v3_large": _accuracy(74.042, source=_V1),
    "mobilenet_v3_small": _accuracy(67.668, source=_V1),
    "efficientnet_b0": _accuracy(77.692, source=_V1),
    "efficientnet_b1": _accuracy(78.642, source=_V1),
    "efficientnet_b2": _accuracy(80.608, source=_V1),
    "efficientnet_b3": _accuracy(82.008, source=_V1),
    "efficientnet_b4": _accuracy(83.384, source=_V1),
    "efficientnet_b5": _accuracy(83.444, source=_V1),
    "efficientnet_b6": _accuracy(84.008, source=_V1),
    "efficientnet_b7": _accuracy(84.122, source=_V1),
    "legacy_seresnet50": _accuracy(77.650, source=_TIMM),
    "legacy_senet154": _accuracy(81.320, source=_TIMM),
    "nasnetalarge": _accuracy(82.638, source=_TIMM),
    "mobilenet_v1": _accuracy(70.6, source="Howard et al. 2017"),
    "nasnetamobile": _accuracy(74.0, 91.6, source="Zoph et al. 2018"),
    "resnet20": Published(8.75, None, _CIFAR, "He et al. 2015"),
    "resnet110": Published(6.43, None, _CIFAR, "He et al. 2015"),
    "wrn_28_10": Published(4.0, None, _CIFAR, "Zagoruyko & Komodakis 2016"),
}


class Slide(NamedTuple):
    """A row of the lecture's comparison slide, and why it differs from what is counted here."""

    size_mb: float
    top1_error: float  # percent
    top5_error: float
    layers: int
    description: str
    remarks: tuple[str, ...]


COMPARISON_SLIDE: dict[str, Slide] = {
    "alexnet": Slide(
        *(238, 41.00, 18.00, 8, "5 conv + 3 fc layers"),
        remarks=(
            "238 is in MiB, of the network without groups; the paper's with two groups has 60.97 M "
            "parameters.",
            "torchvision publishes another network of this name (alexnet_torchvision), with errors "
            "of 43.48 and 20.93 % on one crop.",
        ),
    ),
    "vgg16": Slide(
        *(540, 28.07, 9.33, 16, "13 conv + 3 fc layers"),
        remarks=(
            "540 is neither the size in MB (553.4) nor in MiB (527.8).",
            "28.07 / 9.33 are errors on ten crops; on one crop torchvision's weights have 28.41 / "
            "9.62.",
        ),
    ),
    "vgg19": Slide(
        *(560, 27.30, 9.00, 19, "16 conv + 3 fc layers"),
        remarks=("560 is neither the size in MB (574.7) nor in MiB (548.0).",),
    ),
    "googlenet": Slide(
        *(40, 29.81, 10.04, 22, "21 conv + 1 fc layers"),
        remarks=(
            "7.0 M parameters are 28.0 MB; 40 fits no form of the network (with both auxiliary "
            "heads it is 53.5 MB).",
            "22 layers are those of the longest path; there are 58 with weights.",
            "Its 6.7 % of another slide is that of seven models on 144 crops; one crop of one "
            "model is near 10.07 %.",
        ),
    ),
    "resnet50": Slide(
        *(100, 22.85, 6.71, 50, "49 conv + 1 fc layers"),
        remarks=(
            "102.2 MB, rounded.",
            "22.85 / 6.71 are errors on ten crops; on one crop torchvision's weights have 23.87 / "
            "7.14.",
            "50 layers are those of the longest path; four shortcuts have weights besides.",
        ),
    ),
    "resnet152": Slide(
        *(235, 21.43, 3.57, 152, "151 conv + 1 fc layers"),
        remarks=(
            "240.8 MB, rounded.",
            "21.43 is the top-1 error of one model on ten crops, whose top-5 error is 5.71; 3.57 "
            "is the top-5 error of six models together on the test set.",
            "152 layers are those of the longest path; four shortcuts have weights besides.",
        ),
    ),
}


class SlideLayer(NamedTuple):
    """A row of the lecture's table of VGG-16."""

    layer: str
    size: str
    memory: str  # numbers in the output, rounded on the slide
    parameters: int | None  # without biases


VGG16_SLIDE: tuple[SlideLayer, ...] = (
    SlideLayer("Input", "224x224x3", "150k", 0),
    SlideLayer("C3-64", "224x224x64", "3.2M", 1728),
    SlideLayer("C3-64", "224x224x64", "3.2M", 36864),
    SlideLayer("Pool2", "112x112x64", "800k", 0),
    SlideLayer("C3-128", "112x112x128", "1.6M", 73728),
    SlideLayer("C3-128", "112x112x128", "1.6M", 147456),
    SlideLayer("Pool2", "56x56x128", "400k", 0),
    SlideLayer("C3-256", "56x56x256", "800k", 294912),
    SlideLayer("C3-256", "56x56x256", "800k", 589824),
    SlideLayer("C3-256", "56x56x256", "800k", 589824),
    SlideLayer("Pool2", "28x28x256", "200k", 0),
    SlideLayer("C3-512", "28x28x512", "400k", 1179648),
    SlideLayer("C3-512", "28x28x512", "400k", 2359296),
    SlideLayer("C3-512", "28x28x512", "400k", 2359296),
    SlideLayer("Pool2", "14x14x512", "100k", 0),
    SlideLayer("C3-512", "14x14x512", "100k", 2359296),
    SlideLayer("C3-512", "14x14x512", "100k", 2359296),
    SlideLayer("C3-512", "14x14x512", "100k", 2359296),
    SlideLayer("Pool2", "7x7x512", "25k", 0),
    SlideLayer("FC", "1x1x4096", "4096", 102760448),
    SlideLayer("FC", "1x1x4096", "4096", 16777216),
    SlideLayer("FC", "1x1x1000", "1000", 4096000),
)
VGG16_REMARKS = (
    "The slide's total memory, 24M numbers or 96 MB, is a slip: its own rows sum to 15,237,608 "
    "numbers, 60.95 MB; with the outputs of the ReLUs it would be 28,793,320.",
    "Its 138M parameters are the weights alone, 138,344,128; with the biases 138,357,544.",
)
