"""Write segmentation.npz from the networks that ours are to equal, each filled by parity.py's rule.

As torch_parity.py does for classifiers; of the logits, behind which lie the auxiliary head's, every
eighth pixel along each axis is kept. torchvision's networks are whole. Those of

  github.com/milesial/Pytorch-UNet at 21d7850, github.com/wkentaro/pytorch-fcn at 4b98850 and
  github.com/vinceecws/SegNet_PyTorch at d870acc

have a sixteenth of the channels, and SegNet's biases before a normalisation are zero, as ours has
none. Run from the repository's root, where torch and torchvision are installed, with the folders of
these three: `python -m tests.references.make_segmentation UNET FCN/torchfcn SEGNET`.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import segmentation

from tests.references import parity
from tests.references.torch_parity import fill, without_randomness

EVERY = 8


def torchvision_model(name: str) -> nn.Module:
    build = getattr(segmentation, name)
    return fill(build(weights_backbone=None, num_classes=parity.NUM_CLASSES, aux_loss=True))


def narrowed(model: nn.Module) -> nn.Module:
    """Give every layer a sixteenth of its channels; those of images and classes stay."""

    def channels(count: int) -> int:
        return count // 16 if count >= 64 else count

    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                new = type(layer)(
                    channels(layer.in_channels),
                    channels(layer.out_channels),
                    layer.kernel_size,
                    layer.stride,
                    layer.padding,
                    bias=layer.bias is not None,
                )
            elif isinstance(layer, nn.BatchNorm2d):
                new = nn.BatchNorm2d(channels(layer.num_features))
            else:
                continue
            setattr(module, name, new)
    return model


def unet() -> nn.Module:
    module = importlib.import_module("unet.unet_model")
    return fill(narrowed(module.UNet(3, parity.NUM_CLASSES)))


def fcn(stride: int) -> nn.Module:
    sys.modules["fcn"] = types.ModuleType("fcn")  # imported there for downloads alone
    module = importlib.import_module(f"models.fcn{stride}s")
    return fill(narrowed(getattr(module, f"FCN{stride}s")(parity.NUM_CLASSES)))


def segnet() -> nn.Module:
    module = importlib.import_module("CamVid.SegNet")
    model = fill(narrowed(module.SegNet(3, parity.NUM_CLASSES)))
    del model.BNDe11  # never used there
    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d) and name != "ConvDe11":
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # ours
    model.forward = types.MethodType(logits_of(type(model).forward), model)
    return model


def logits_of(forward):
    """The network ends with a softmax; its input is what is wanted."""

    def logits(self, x):
        found = []
        hook = self.ConvDe11.register_forward_hook(lambda module, args, out: found.append(out))
        forward(self, x)
        hook.remove()
        return found[0]

    return logits


MODELS = {
    **{
        name: (lambda name=name: torchvision_model(name), 65)
        for name in ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101")
    },
    "unet_bn": (unet, 64),
    "fcn32s_vgg16": (lambda: fcn(32), 65),
    "fcn16s_vgg16": (lambda: fcn(16), 65),
    "fcn8s_vgg16": (lambda: fcn(8), 65),
    "segnet": (segnet, 64),
}


@torch.no_grad()
def run(model: nn.Module, size: int) -> dict[str, np.ndarray]:
    """Return the logits in evaluation, after a training-mode forward moved the statistics."""
    model = without_randomness(model)
    x = torch.from_numpy(parity.images(size)).permute(0, 3, 1, 2)
    results = {"size": np.array(size)}
    if any(name.endswith("running_mean") for name in model.state_dict()):
        model.train()(x)
        tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        results["stats"] = parity.digest(tensors)
    outputs = model.eval()(x)
    if isinstance(outputs, dict):
        outputs = torch.cat([outputs["out"], outputs["aux"]], dim=1)
    results["logits"] = outputs.permute(0, 2, 3, 1)[:, ::EVERY, ::EVERY].numpy()
    return results


if __name__ == "__main__":
    sys.path.extend(sys.argv[1:])
    arrays = {}
    for name, (build, size) in MODELS.items():
        results = run(build(), size)
        arrays |= {f"{name}/{key}": value for key, value in results.items()}
        print(name, results["logits"].shape, results["logits"][0, 3, 3, :3], flush=True)
    np.savez_compressed(Path(__file__).with_name("segmentation.npz"), **arrays)
