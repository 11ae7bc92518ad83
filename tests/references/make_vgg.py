"""Write vgg.npz from torchvision's VGGs, see torch_parity.py."""

from tests.references.torch_parity import torchvision_model, write

NAMES = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]

if __name__ == "__main__":
    write("vgg", {name: (torchvision_model(name), 64) for name in NAMES})
