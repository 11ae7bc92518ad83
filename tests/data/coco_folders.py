"""Small folders of images with annotations in COCO's JSON, as users have them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

WIDTH, HEIGHT = 320, 240
CATEGORIES = [  # ids with gaps, not in order
    {"id": 90, "name": "ca$$h", "supercategory": "things"},
    {"id": 3, "name": "tea pot", "supercategory": "things"},
    {"id": 7, "name": "猫", "supercategory": "animals"},
]
CLASSES = ("tea pot", "猫", "ca$$h")


def rectangle(x: int, y: int, width: int, height: int) -> list[list[float]]:
    """A rectangle as COCO's polygon."""
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def mask_of(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def plain_run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths: down the columns, of zeros first."""
    flat = mask.ravel(order="F").astype(int)
    edges = [0, *np.flatnonzero(np.diff(flat, prepend=0)).tolist(), flat.size]
    return {"size": list(mask.shape), "counts": np.diff(edges).tolist()}


def content(images: int = 4, first: int = 100) -> dict:
    """A file of `images` images: boxes of 60 x 60, larger and smaller ones, and a crowd."""
    listed, annotations = [], []

    def add(image, category, box, segmentation, crowd=0):
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": category,
                "bbox": list(map(float, box)),
                "area": float(box[2] * box[3]),
                "segmentation": segmentation,
                "iscrowd": crowd,
            }
        )

    for i in range(images):
        number = first + 10 * i
        listed.append({"id": number, "file_name": f"img {i}.png", "width": WIDTH, "height": HEIGHT})
        box = (20 + 10 * i, 30, 60, 60)
        add(number, 90, box, rectangle(*box))
        box = (150, 50 + i, 100, 120)
        add(number, 3, box, plain_run_lengths(mask_of(*box)))
        if i % 2:
            box = (200, 100, 20, 24)
            encoded = run_lengths.encode(np.asfortranarray(mask_of(*box)))
            add(number, 7, box, {**encoded, "counts": encoded["counts"].decode()})
        else:
            box = (20, 150, 110, 80)
            add(number, 90, box, plain_run_lengths(mask_of(*box)), crowd=1)
    return {"images": listed, "annotations": annotations, "categories": [*CATEGORIES]}


def write_images(folder: Path, listed: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(listed):
        pixels = np.full((image["height"], image["width"], 3), 20 * i, np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])


def as_coco(root: Path, train: dict, held_out: dict) -> Path:
    """The layout of COCO itself."""
    (root / "annotations").mkdir(parents=True)
    for split, own in (("train2017", train), ("val2017", held_out)):
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(own))
        (root / f"annotations/captions_{split}.json").write_text("{}")
        write_images(root / split, own["images"])
    return root


def as_roboflow(root: Path, train: dict, held_out: dict) -> Path:
    """The layout of Roboflow's exports."""
    for split, own in (("train", train), ("valid", held_out)):
        write_images(root / split, own["images"])
        (root / split / "_annotations.coco.json").write_text(json.dumps(own))
    return root


def as_single_file(root: Path, whole: dict) -> Path:
    """One file for all images, which lie in images/."""
    write_images(root / "images", whole["images"])
    (root / "labels.json").write_text(json.dumps(whole))
    return root
