"""Write senet.npz from timm's SE networks, see torch_parity.py."""

from tests.references.torch_parity import timm_model, write

NAMES = [
    "seresnet18",
    "seresnet34",
    "seresnet50",
    "seresnet101",
    "seresnet152",
    "seresnext50_32x4d",
    "seresnext101_32x4d",
    "legacy_seresnet50",
    "legacy_seresnet101",
    "legacy_seresnet152",
    "legacy_seresnext50_32x4d",
    "legacy_seresnext101_32x4d",
]
# a block or two of each stage: convolutions in 64 groups compile for minutes
SHALLOW = ["senet154", "legacy_senet154"]

if __name__ == "__main__":
    rows = {name: (timm_model(name), 64) for name in NAMES}
    rows |= {name: (timm_model(name, layers=(1, 2, 1, 1)), 64) for name in SHALLOW}
    write("senet", rows)
