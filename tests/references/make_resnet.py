"""Write resnet.npz from torchvision's ResNets, see torch_parity.py."""

from tests.references.torch_parity import torchvision_model, write

NAMES = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]

if __name__ == "__main__":
    write("resnet", {name: (torchvision_model(name), 64) for name in NAMES})
