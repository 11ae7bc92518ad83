"""Write mobilenet.npz from torchvision's and timm's MobileNets, see torch_parity.py."""

from tests.references.torch_parity import timm_model, torchvision_model, write

TORCHVISION = ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]
TIMM = ["mobilenetv1_100", "mobilenetv2_050", "mobilenetv2_140"]

if __name__ == "__main__":
    rows = {name: (torchvision_model(name), 64) for name in TORCHVISION}
    rows |= {name: (timm_model(name), 64) for name in TIMM}
    write("mobilenet", rows)
