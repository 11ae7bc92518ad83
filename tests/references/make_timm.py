"""Write timm.npz: timm's networks that torchvision names otherwise, by the rule of parity.py.

"NAME/logits" in evaluation, "NAME/size" of the images, and "NAME/tensors", each one's name and
shape as JSON. Run from the repository's root, where torch and timm are installed:
`python -m tests.references.make_timm`.
"""

import json
from pathlib import Path

import numpy as np
import torch

from tests.references import parity
from tests.references.torch_parity import fill, timm_model

# our name -> timm's, image size
ROWS = {
    "convnext_tiny": ("convnext_tiny", 64),
    "efficientnet_b0": ("efficientnet_b0", 64),
    "mobilenet_v2": ("mobilenetv2_100", 64),
    "regnet_x_800mf": ("regnetx_008", 64),
    "regnet_y_400mf": ("regnety_004", 64),
    "vgg11_bn": ("vgg11_bn", 64),
}

if __name__ == "__main__":
    arrays = {}
    for name, (theirs, size) in ROWS.items():
        model = fill(timm_model(theirs)(parity.NUM_CLASSES)).eval()
        x = torch.from_numpy(parity.images(size)).permute(0, 3, 1, 2)
        with torch.no_grad():
            logits = model(x).numpy()
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        print(name, logits[0, :3])
        arrays[f"{name}/size"] = np.array(size)
        arrays[f"{name}/tensors"] = np.array(json.dumps(shapes))
        arrays[f"{name}/logits"] = logits
    np.savez_compressed(Path(__file__).with_name("timm.npz"), **arrays)
