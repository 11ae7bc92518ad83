"""Writes torchvision_augmentation.npz, torchvision's results on two small images.

Made with torchvision 0.29.2, torch 2.13.0 and pillow 13.0.0:
  python tests/references/torchvision_augmentation.py
"""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms import functional as F

NAMES = {
    "Identity": "identity",
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "translate_x",
    "TranslateY": "translate_y",
    "Rotate": "rotate",
    "Brightness": "brightness",
    "Color": "color",
    "Contrast": "contrast",
    "Sharpness": "sharpness",
    "Posterize": "posterize",
    "Solarize": "solarize",
    "AutoContrast": "autocontrast",
    "Equalize": "equalize",
}
INTERPOLATIONS = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


def main():
    noise = np.random.default_rng(0).normal(0, 40, (13, 17, 3))
    slope = np.arange(13)[:, None, None] * 9 + np.arange(17)[:, None] * np.array([3, -4, 7]) + 90
    rgb = np.clip(slope + noise, 0, 255).astype(np.uint8)
    images = {"rgb": Image.fromarray(rgb), "grey": Image.fromarray(rgb[:, :, 1].T.copy())}
    results = {f"image/{kind}": np.asarray(image) for kind, image in images.items()}

    spaces = {
        "randaugment": autoaugment.RandAugment()._augmentation_space(31, (375, 500)),
        "trivialaugment": autoaugment.TrivialAugmentWide()._augmentation_space(31),
    }
    for policy, space in spaces.items():
        assert list(space) == list(NAMES)
        for theirs, (magnitudes, signed) in space.items():
            name = NAMES[theirs]
            strengths = np.broadcast_to(magnitudes.numpy().astype(np.float64), 31)
            results[f"strength/{policy}/{name}"] = strengths
            results[f"signed/{name}"] = np.array(signed)
            signs = (1, -1) if signed else (1,)
            for strength in {float(sign * strengths[at]) for sign in signs for at in (9, 30)}:
                for resample in ("nearest", "bilinear") if signed else ("nearest",):
                    for kind, image in images.items():
                        result = autoaugment._apply_op(
                            image, theirs, strength, INTERPOLATIONS[resample], None
                        )
                        key = f"operation/{name}/{strength}/{resample}/{kind}"
                        results[key] = np.asarray(result)

    for kind, image in images.items():
        for turn in (-0.5, -0.123, 0.2, 0.5):
            results[f"hue/{turn}/{kind}"] = np.asarray(F.adjust_hue(image, turn))
        for interpolation in ("bilinear", "bicubic"):
            for resize, size in ((9, 8), (13, 6), (20, 11)):
                resized = F.resize(image, [resize], INTERPOLATIONS[interpolation])
                key = f"{interpolation}/{resize}/{size}/{kind}"
                results[f"center_crop/{key}"] = np.asarray(F.center_crop(resized, [size]))
                crops = F.ten_crop(resized, [size])
                results[f"ten_crop/{key}"] = np.stack([np.asarray(crop) for crop in crops])
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **results)


if __name__ == "__main__":
    main()
