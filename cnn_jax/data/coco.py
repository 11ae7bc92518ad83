"""A folder of images whose objects are annotated in COCO's JSON, in the layouts that people have.

An annotation file is FOLDER/annotations/*.json, FOLDER/*.json or FOLDER/train/*.json (Roboflow's is
_annotations.coco.json); "train", "val", "valid", "validation" or "test" in its own name, or the
name of its folder, says of which split. Where several are of one split, that of COCO's
instances_* counts. A single file without such a word is "train".

Images are found by their file_name in the annotations' own folder, in a folder of the split's name
(train2017, train, ...) in FOLDER or FOLDER/images, in FOLDER/images, or in FOLDER.

Classes are those of the training file, in the order of their ids, which may have gaps; another
split's are matched with them by name. A category that has no object and only groups others, as
Roboflow writes one, is no class. Annotations of images that the file does not list do not count.

COCO's format: Lin et al. 2014, and cocodataset.org/#format-data.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as run_lengths

from cnn_jax import errors
from cnn_jax.data import slices
from cnn_jax.errors import UsageError

PREFIX = "coco:"
_WORDS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_NO_OBJECTS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")  # of COCO's files


class Annotations(NamedTuple):
    """What a file says: its images, the annotations of each by the image's id, its categories."""

    images: Sequence[Mapping[str, Any]]
    of_image: Mapping[int, Sequence[Mapping[str, Any]]]
    categories: Mapping[int, Mapping[str, Any]]


class COCOSource:
    """source[i] of one split, as TFDS gives images with objects.

    "image": the file's bytes; "filename"; "size": its (width, height); "objects": "bbox" float64
    [m, 4], (y1, x1, y2, x2) as shares of the image; "label", from 0 on; "is_crowd"; "area" in
    pixels, the annotation's own; and, where all annotations of the file have one,
    "segmentation": a run-length encoding of pycocotools for each.

    Attributes:
      most_objects: of an image.
      unmasked: how many annotations have no segmentation.
    """

    def __init__(
        self, file: Path, images: Sequence, annotations: Annotations, labels: Mapping[int, int]
    ):
        self._file, self._images, self._labels = file, images, labels
        self._objects = [annotations.of_image.get(image["id"], ()) for _, image in images]
        self.most_objects = max(map(len, self._objects), default=0)
        self.unmasked = sum(not one.get("segmentation") for own in self._objects for one in own)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict:
        path, image = self._images[index]
        own, size = self._objects[index], (image["width"], image["height"])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        boxes = np.array([one["bbox"] for one in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # x, y, width, height
        objects = {
            "bbox": (boxes / np.tile(size, 2))[:, [1, 0, 3, 2]],
            "label": np.array([self._labels[one["category_id"]] for one in own], np.int64),
            "is_crowd": np.array([bool(one.get("iscrowd")) for one in own], bool),
            "area": np.array(
                [one.get("area", one["bbox"][2] * one["bbox"][3]) for one in own], np.float64
            ),
        }
        if not self.unmasked:
            objects["segmentation"] = [self._mask(one, *size) for one in own]
        return {"image": content, "filename": str(path), "size": size, "objects": objects}

    def _mask(self, annotation: Mapping[str, Any], width: int, height: int) -> dict:
        """An annotation's polygons or run lengths as pycocotools' compressed run lengths."""
        shape = annotation["segmentation"]
        try:
            if isinstance(shape, list):
                return run_lengths.merge(run_lengths.frPyObjects(shape, height, width))
            if isinstance(shape["counts"], list):
                shape = run_lengths.frPyObjects(shape, height, width)
            if tuple(shape["size"]) == (height, width):
                return {"size": [height, width], "counts": shape["counts"]}
            reason = f"it is of {shape['size'][1]}x{shape['size'][0]} pixels, not {width}x{height}"
        except Exception as error:  # pycocotools raises bare Exceptions
            reason = str(error)
        raise UsageError(
            f"{self._file}: the segmentation of annotation {annotation.get('id')} is not COCO's: "
            f"{reason}; mend the file"
        )


def splits(path: str) -> tuple[str, str]:
    """Return the names of the splits to train on and to report results on.

    The latter is "test", else "validation"; of a single file, its last tenth.
    """
    found = _files(_root(path))
    if list(found) == ["train"]:
        return "train[:90%]", "train[90%:]"
    for held_out in ("test", "validation"):
        if "train" in found and held_out in found:
            return "train", held_out
    raise UsageError(
        f"{path} has annotations of {', '.join(found)} alone; give --train_split and --eval_split"
    )


def load(path: str, split: str) -> tuple[COCOSource, tuple[str, ...]]:
    """Open one split of a folder.

    Args:
      split: "train", "validation", "test" as far as there, or a slice of one: "train[:90%]", in an
        order that is random and always the same.

    Returns:
      The examples, and the names of the classes.

    Raises:
      UsageError: no such folder, split, annotations or images, or a file that is not COCO's.
    """
    root = _root(path)
    found = _files(root)
    name = re.match(r"\w*", split)[0]
    if name not in found:
        raise errors.unknown(f"split of {path}", name, found)
    file = found[name]
    annotations = _read(file)
    classes = _classes(found.get("train", file))
    labels, used = {}, {one["category_id"] for own in annotations.of_image.values() for one in own}
    for number, category in annotations.categories.items():
        if category["name"] in classes:
            labels[number] = classes.index(category["name"])
        elif number in used:
            raise UsageError(
                f"{file} has objects of class {category['name']!r}, which {found['train']} lacks; "
                "mend one of them"
            )
    images = _located(annotations.images, file, _image_folders(root, name, file))
    if split != name:
        images = _slice(images, split, name)
    return COCOSource(file, images, annotations, labels), classes


def _root(path: str) -> Path:
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(f"no such folder: {path}; give coco:FOLDER, with annotations and images")
    return root


def _split_of(words: Sequence[str]) -> str | None:
    return next((name for name, own in _WORDS.items() if set(own) & set(words)), None)


def _words(name: str) -> list[str]:
    return re.findall("[a-z]+", name.lower())


def _files(root: Path) -> dict[str, Path]:
    """The annotation file of each split."""
    found, other = defaultdict(list), []
    split_folders = [
        each for each in root.iterdir() if each.is_dir() and _split_of([*_words(each.name)])
    ]
    for folder in (root / "annotations", root, *sorted(split_folders)):
        for file in sorted(folder.glob("*.json")):
            if file.name.startswith(_NO_OBJECTS):
                continue
            words = _words(file.stem) + (_words(folder.name) if folder in split_folders else [])
            split = _split_of(words)
            (other if split is None else found[split]).append(file)
    if not found and len(other) == 1:
        return {"train": other[0]}
    for split, files in found.items():
        own = [file for file in files if file.name.startswith("instances")] or files
        if len(own) > 1:
            raise UsageError(
                f"{root} has several annotation files of {split}: "
                f"{', '.join(str(file.relative_to(root)) for file in own)}; keep one of them there"
            )
        found[split] = own
    if not found:
        named = f"; of no split by name: {', '.join(file.name for file in other)}" if other else ""
        raise UsageError(
            f"{root} has no annotations in COCO's JSON: neither annotations/instances_train.json "
            f"nor train/_annotations.coco.json{named}"
        )
    return {split: found[split][0] for split in _WORDS if split in found}


def _image_folders(root: Path, split: str, file: Path) -> list[Path]:
    """Where the images of an annotation file may lie, likeliest first."""
    own = re.findall("[a-z]+[0-9]*", file.stem.lower())  # of instances_train2017, train2017
    own = [word for word in own if _split_of(_words(word)) == split]
    names = [*own, *_WORDS[split], file.parent.name.lower()]
    folders = []
    for base in (root, root / "images"):
        inside = sorted(base.iterdir()) if base.is_dir() else []
        by_name = {each.name.lower(): each for each in inside if each.is_dir()}
        folders += [by_name[name] for name in names if name in by_name]
    return [file.parent, *folders, root / "images", root]


def _located(
    images: Sequence[Mapping[str, Any]], file: Path, folders: list[Path]
) -> list[tuple[Path, Mapping[str, Any]]]:
    """Each image with its path."""
    found, missing, folders = [], [], list(folders)
    for image in images:
        name = str(image["file_name"]).replace("\\", "/")
        for way in (name, os.path.basename(name)):
            folder = next((each for each in folders if (each / way).is_file()), None)
            if folder is not None:
                folders.remove(folder)
                folders.insert(0, folder)  # the next is likely there too
                found.append((folder / way, image))
                break
        else:
            missing.append(name)
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        places = ", ".join(sorted({str(each) for each in folders}))
        raise UsageError(
            f"{len(missing)} of the {len(images)} images of {file} are missing: {some}; looked in "
            f"{places}"
        )
    return found


def _slice(images: list, split: str, name: str) -> list:
    """The part of the shuffled images that a slice in TFDS's notation names."""
    order = np.random.RandomState(0).permutation(len(images))  # its stream is frozen (NEP 19)
    return [images[order[i]] for _, i in slices.of_split(split, {name: len(images)})]


def _classes(file: Path) -> tuple[str, ...]:
    """The names of a file's classes in the order of their ids."""
    _, of_image, categories = _read(file)
    used = {one["category_id"] for own in of_image.values() for one in own}
    groups = {category.get("supercategory") for category in categories.values()}
    names = tuple(
        category["name"]
        for number, category in sorted(categories.items())
        if number in used or category["name"] not in groups - {category.get("supercategory")}
    )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"{file} has two categories called {twice[0]!r}; give them two names")
    return names


def _read(file: Path) -> Annotations:
    return _read_once(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_once(file: Path, changed: int) -> Annotations:
    """Read and check a file, once for as long as it is unchanged."""
    del changed
    try:
        content = json.loads(file.read_text())
        images, listed, categories = (
            content[key] for key in ("images", "annotations", "categories")
        )
        categories = {one["id"]: {**one, "name": str(one["name"])} for one in categories}
        for image in images:
            _ = image["id"], image["file_name"]
            if not (image["width"] > 0 and image["height"] > 0):
                raise UsageError(f"{file}: image {image['id']} has no width and height")
        of_image = defaultdict(list)
        known = {image["id"] for image in images}
        for one in listed:
            where = f"{file}: annotation {one.get('id')}"
            if one["category_id"] not in categories:
                raise UsageError(f"{where} is of category {one['category_id']}, which is not there")
            box = np.asarray(one["bbox"], np.float64)
            if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] < 0).any():
                raise UsageError(f"{where} has the bbox {one['bbox']}, not x, y, width, height")
            if one["image_id"] in known:
                of_image[one["image_id"]].append(one)
    except KeyError as error:
        raise UsageError(f"{file} is not COCO's JSON of objects: it lacks {error}") from None
    except (TypeError, ValueError, AttributeError, OSError) as error:
        raise UsageError(f"{file} is not COCO's JSON of objects: {error}") from None
    if len(known) < len(images):
        raise UsageError(f"{file} has two images of one id; mend it")
    return Annotations(images, dict(of_image), categories)
