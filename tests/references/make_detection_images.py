"""Write detection_images.npz: torchvision's Mask R-CNN asked about images of odd sizes, in float64.

The network of make_detection.py with the whole transform: resized, padded, and what is found mapped
back, for all images in one call; also the sizes that the transform gives at 800 and 1333 pixels,
and a resized image. Run from the repository's root, where torch and torchvision are installed:
`python -m tests.references.make_detection_images`.
"""

from pathlib import Path

import numpy as np
import torch
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN, _utils, backbone_utils
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from tests.references import detection_scene as scene
from tests.references.make_detection import fewer
from tests.references.torch_parity import fill

if __name__ == "__main__":
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    model = MaskRCNN(
        backbone_utils._resnet_fpn_extractor(body, 5),
        91,
        min_size=scene.SHORTER,
        max_size=scene.LONGER,
        **fewer(scene.PROPOSALS, scene.REGIONS),
    )
    model = fill(model).eval()
    _utils.overwrite_eps(model, 0.0)
    images = [torch.from_numpy(image).permute(2, 0, 1) for image in scene.odd_images()]
    arrays = {}
    with torch.no_grad():
        found = model(images)
        for i, each in enumerate(found):
            arrays |= {f"{key}/{i}": value.numpy() for key, value in each.items() if key != "masks"}
            arrays[f"masks/{i}"] = np.packbits(each["masks"][:, 0].numpy() > 0.5)
            print({key: value.shape for key, value in each.items()}, each["scores"][:3])
        arrays["resized"] = model.transform.resize(images[0])[0].permute(1, 2, 0).numpy()[::7, ::7]
    transform = GeneralizedRCNNTransform(800, 1333, [0.0], [1.0]).eval()
    given = np.random.default_rng(0).integers(30, 1700, (300, 2))
    resized = [transform.resize(torch.zeros(1, *size))[0].shape[1:] for size in given.tolist()]
    arrays |= {"sizes": given, "resized_sizes": np.array(resized)}
    np.savez_compressed(Path(__file__).with_name("detection_images.npz"), **arrays)
