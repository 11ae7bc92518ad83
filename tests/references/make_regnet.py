"""Write regnet.npz from torchvision's RegNets, see torch_parity.py."""

from tests.references.torch_parity import torchvision_model, write

SIZES = ["400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf"]

if __name__ == "__main__":
    names = [f"regnet_{kind}_{size}" for kind in "xy" for size in SIZES] + ["regnet_y_128gf"]
    write("regnet", {name: (torchvision_model(name), 64) for name in names})
