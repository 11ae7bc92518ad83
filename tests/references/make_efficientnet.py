"""Write efficientnet.npz from torchvision's and timm's EfficientNets, see torch_parity.py."""

from tests.references.torch_parity import timm_model, torchvision_model, write

TORCHVISION = [f"efficientnet_b{i}" for i in range(8)] + [f"efficientnet_v2_{i}" for i in "sml"]
TIMM = ["tf_efficientnet_b0", "tf_efficientnet_b5"]
TIMM += [f"tf_efficientnet_lite{i}" for i in range(5)] + ["efficientnet_lite0"]

if __name__ == "__main__":
    rows = {name: (torchvision_model(name), 64) for name in TORCHVISION}
    # an odd size pads otherwise than an even one
    rows |= {name: (timm_model(name), 75) for name in TIMM}
    write("efficientnet", rows)
