"""Write resnext.npz from torchvision's and timm's ResNeXts, see torch_parity.py."""

from torch import nn

from tests.references.torch_parity import timm_model, torchvision_model, write


def cifar_resnext(groups: int):
    """Return the builder of torchvision's ResNet in the form of the authors' CIFAR networks."""

    def build(num_classes: int) -> nn.Module:
        from torchvision.models.resnet import Bottleneck, ResNet

        model = ResNet(Bottleneck, [3, 3, 3, 1], groups=groups, width_per_group=64)
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = model.layer4 = nn.Identity()
        model.fc = nn.Linear(1024, num_classes)
        return model

    return build


if __name__ == "__main__":
    write(
        "resnext",
        {
            "resnext50_32x4d": (torchvision_model("resnext50_32x4d"), 64),
            "resnext101_32x8d": (torchvision_model("resnext101_32x8d"), 64),
            "resnext101_64x4d": (torchvision_model("resnext101_64x4d"), 64),
            "resnext101_32x4d": (timm_model("resnext101_32x4d"), 64),
            "resnext29_8x64d": (cifar_resnext(8), 16),
            "resnext29_16x64d": (cifar_resnext(16), 16),
        },
    )
