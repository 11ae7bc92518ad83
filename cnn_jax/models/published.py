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


CENTRE_CROP = "ImageNet validation, one centre crop"
TEN_CROPS = "ImageNet validation, ten crops"
ONE_NETWORK = "ImageNet validation, one network"
CIFAR = "CIFAR-10 test"
SIX_VIEWS = CIFAR + ", six views"

# top-1 and top-5 accuracy of the weights that torchvision calls IMAGENET1K_V1
_TORCHVISION = {
    "alexnet_torchvision": (56.522, 79.066),
    "vgg11": (69.020, 88.628),
    "vgg11_bn": (70.370, 89.810),
    "vgg13": (69.928, 89.246),
    "vgg13_bn": (71.586, 90.374),
    "vgg16": (71.592, 90.382),
    "vgg16_bn": (73.360, 91.516),
    "vgg19": (72.376, 90.876),
    "vgg19_bn": (74.218, 91.842),
    "googlenet_torchvision": (69.778, 89.530),
    "resnet101": (77.374, 93.546),
    "resnet152": (78.312, 94.046),
    "resnet18": (69.758, 89.078),
    "resnet34": (73.314, 91.420),
    "resnet50": (76.130, 92.862),
    "wide_resnet101_2": (78.848, 94.284),
    "wide_resnet50_2": (78.468, 94.086),
    "resnext101_32x8d": (79.312, 94.526),
    "resnext101_64x4d": (83.246, 96.454),
    "resnext50_32x4d": (77.618, 93.698),
    "densenet121": (74.434, 91.972),
    "densenet161": (77.138, 93.560),
    "densenet169": (75.600, 92.806),
    "densenet201": (76.896, 93.370),
    "mobilenet_v2": (71.878, 90.286),
    "mobilenet_v3_large": (74.042, 91.340),
    "mobilenet_v3_small": (67.668, 87.402),
    "efficientnet_b0": (77.692, 93.532),
    "efficientnet_b1": (78.642, 94.186),
    "efficientnet_b2": (80.608, 95.310),
    "efficientnet_b3": (82.008, 96.054),
    "efficientnet_b4": (83.384, 96.594),
    "efficientnet_b5": (83.444, 96.628),
    "efficientnet_b6": (84.008, 96.916),
    "efficientnet_b7": (84.122, 96.908),
    "efficientnet_v2_l": (85.808, 97.788),
    "efficientnet_v2_m": (85.112, 97.156),
    "efficientnet_v2_s": (84.228, 96.878),
    "convnext_base": (84.062, 96.870),
    "convnext_large": (84.414, 96.976),
    "convnext_small": (83.616, 96.650),
    "convnext_tiny": (82.520, 96.146),
    "regnet_x_16gf": (80.058, 94.944),
    "regnet_x_1_6gf": (77.040, 93.440),
    "regnet_x_32gf": (80.622, 95.248),
    "regnet_x_3_2gf": (78.364, 93.992),
    "regnet_x_400mf": (72.834, 90.950),
    "regnet_x_800mf": (75.212, 92.348),
    "regnet_x_8gf": (79.344, 94.686),
    "regnet_y_16gf": (80.424, 95.240),
    "regnet_y_1_6gf": (77.950, 93.966),
    "regnet_y_32gf": (80.878, 95.340),
    "regnet_y_3_2gf": (78.948, 94.576),
    "regnet_y_400mf": (74.046, 91.716),
    "regnet_y_800mf": (76.420, 93.136),
    "regnet_y_8gf": (80.032, 95.048),
}

# the weights' tag in timm, top-1 and top-5 accuracy in its results-imagenet.csv
_TIMM = {
    "seresnet50": ("a1_in1k", 80.012, 94.704),
    "seresnext50_32x4d": ("racm_in1k", 81.268, 95.624),
    "seresnext101_32x4d": ("gluon_in1k", 80.886, 95.268),
    "senet154": ("gluon_in1k", 81.258, 95.358),
    "legacy_seresnet50": ("in1k", 77.650, 93.732),
    "legacy_seresnet101": ("in1k", 78.370, 94.264),
    "legacy_seresnet152": ("in1k", 78.662, 94.370),
    "legacy_seresnext50_32x4d": ("in1k", 79.080, 94.428),
    "legacy_seresnext101_32x4d": ("in1k", 80.274, 95.032),
    "legacy_senet154": ("in1k", 81.320, 95.502),
    "resnext101_32x4d": ("gluon_in1k", 80.336, 94.908),
    "mobilenetv1_100": ("ra4_e3600_r224_in1k", 75.388, 92.310),
    "mobilenetv2_050": ("lamb_in1k", 65.928, 86.114),
    "mobilenetv2_140": ("ra_in1k", 76.528, 93.008),
    "tf_efficientnet_b0": ("aa_in1k", 76.882, 93.270),
    "tf_efficientnet_b1": ("aa_in1k", 78.840, 94.202),
    "tf_efficientnet_b2": ("aa_in1k", 80.074, 94.906),
    "tf_efficientnet_b3": ("aa_in1k", 81.648, 95.724),
    "tf_efficientnet_b4": ("aa_in1k", 83.040, 96.298),
    "tf_efficientnet_b5": ("aa_in1k", 83.696, 96.712),
    "tf_efficientnet_b6": ("aa_in1k", 84.124, 96.890),
    "tf_efficientnet_b7": ("aa_in1k", 84.424, 96.908),
    "tf_efficientnet_lite0": ("in1k", 74.846, 92.180),
    "tf_efficientnet_lite1": ("in1k", 76.674, 93.232),
    "tf_efficientnet_lite2": ("in1k", 77.470, 93.756),
    "tf_efficientnet_lite3": ("in1k", 79.808, 94.908),
    "tf_efficientnet_lite4": ("in1k", 81.540, 95.668),
    "efficientnet_lite0": ("ra_in1k", 75.488, 92.508),
    "nasnetalarge": ("tf_in1k", 82.638, 96.066),
}

# top-1 and top-5 error in the paper
_PAPERS = {
    "alexnet_grouped": (40.7, 18.2, TEN_CROPS, "Krizhevsky et al. 2012, table 2"),
    "zfnet": (38.4, 16.5, ONE_NETWORK, "Zeiler & Fergus 2014, table 2"),
    "zfnet_512_1024_512": (37.5, 16.0, ONE_NETWORK, "Zeiler & Fergus 2014, table 2"),
    "googlenet": (None, 10.07, "ImageNet validation, one crop", "Szegedy et al. 2015, table 3"),
    "resnet50_v1": (24.7, 7.8, CENTRE_CROP, "He et al. 2015, their released networks"),
    "resnet101_v1": (23.6, 7.1, CENTRE_CROP, "He et al. 2015, their released networks"),
    "resnet152_v1": (23.0, 6.7, CENTRE_CROP, "He et al. 2015, their released networks"),
    "regnet_y_128gf": (
        *(13.932, 2.156, CENTRE_CROP),
        "torchvision, IMAGENET1K_SWAG_LINEAR_V1 weights, trained on other images but for the head",
    ),
    "densenet264": (22.15, 6.12, CENTRE_CROP, "Huang et al. 2017, table 3"),
    "mobilenet_v1": (29.4, None, CENTRE_CROP, "Howard et al. 2017, table 6"),
    "mobilenet_v1_075": (31.6, None, CENTRE_CROP, "Howard et al. 2017, table 6"),
    "mobilenet_v1_050": (36.3, None, CENTRE_CROP, "Howard et al. 2017, table 6"),
    "mobilenet_v1_025": (49.4, None, CENTRE_CROP, "Howard et al. 2017, table 6"),
    "nasnetamobile": (26.0, 8.4, CENTRE_CROP, "Zoph et al. 2018, TF-Slim's weights"),
    "nasnetamobile_slim": (26.0, 8.4, CENTRE_CROP, "Zoph et al. 2018, TF-Slim's weights"),
    "resnet20": (8.75, None, CIFAR, "He et al. 2015, table 6"),
    "resnet32": (7.51, None, CIFAR, "He et al. 2015, table 6"),
    "resnet44": (7.17, None, CIFAR, "He et al. 2015, table 6"),
    "resnet56": (6.97, None, CIFAR, "He et al. 2015, table 6"),
    "resnet110": (6.43, None, CIFAR + ", best of 5 runs", "He et al. 2015, table 6"),
    "preact_resnet164": (5.46, None, CIFAR + ", median of 5 runs", "He et al. 2016"),
    "wrn_28_10": (4.00, None, CIFAR + ", median of 5 runs", "Zagoruyko & Komodakis 2016"),
    "wrn_28_10_dropout": (3.89, None, CIFAR + ", median of 5 runs", "Zagoruyko & Komodakis 2016"),
    "densenet_40_12": (5.24, None, CIFAR, "Huang et al. 2017, table 2"),
    "densenet_100_12": (4.10, None, CIFAR, "Huang et al. 2017, table 2"),
    "densenet_100_24": (3.74, None, CIFAR, "Huang et al. 2017, table 2"),
    "densenet_bc_100_12": (4.51, None, CIFAR, "Huang et al. 2017, table 2"),
    "densenet_bc_250_24": (3.62, None, CIFAR, "Huang et al. 2017, table 2"),
    "densenet_bc_190_40": (3.46, None, CIFAR, "Huang et al. 2017, table 2"),
    "airbench94": (5.99, None, SIX_VIEWS + ", mean of 200 runs", "Jordan, airbench94_muon.py"),
    "airbench95": (4.99, None, SIX_VIEWS + ", mean of 200 runs", "Jordan, airbench95.py"),
    "airbench96": (3.97, None, SIX_VIEWS + ", mean of 400 runs", "Jordan, airbench96.py"),
    "nasneta_cifar": (3.41, None, CIFAR, "Zoph et al. 2018, table 1, without cutout"),
    "lenet5": (0.95, None, "MNIST test, undistorted training set", "LeCun et al. 1998"),
}


def _of_weights(top1: float, top5: float, source: str) -> Published:
    """Turn accuracies into errors."""
    return Published(round(100 - top1, 3), round(100 - top5, 3), CENTRE_CROP, source)


PUBLISHED: dict[str, Published] = {
    **{
        name: _of_weights(*accuracies, source="torchvision, IMAGENET1K_V1 weights")
        for name, accuracies in _TORCHVISION.items()
    },
    **{
        name: _of_weights(*accuracies, source=f"timm, {tag} weights")
        for name, (tag, *accuracies) in _TIMM.items()
    },
    **{name: Published(*row) for name, row in _PAPERS.items()},
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
