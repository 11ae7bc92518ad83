"""Write convnext.npz from torchvision's ConvNeXts, see torch_parity.py."""

from tests.references.torch_parity import torchvision_model, write

NAMES = ["convnext_tiny", "convnext_small", "convnext_base", "convnext_large"]

if __name__ == "__main__":
    write("convnext", {name: (torchvision_model(name), 64) for name in NAMES})
