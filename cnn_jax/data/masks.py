"""Data sets with a class for every pixel, by name: what each value of a mask means.

Classes are numbered from 0, which is the ground where a data set has one; IGNORED stands for pixels
that count in neither loss nor metrics.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as run_lengths

from cnn_jax import errors
from cnn_jax.data import coco, datasets
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.tasks.segmentation import IGNORED

VOC = "voc:"
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_VOC_COLOURS = (128, 0, 0, 0, 128, 0, 128, 128, 0)  # of its classes 1 to 3 in the masks' palettes
IGNORED_NAME = "ignored"  # what --mask_values calls it


class Masks(NamedTuple):
    """How a data set keeps its masks: the feature, the classes, and the class of each value."""

    feature: str
    class_names: tuple[str, ...]
    classes: Mapping[int, int]  # value -> class, or IGNORED; other values are errors


def parse(mask_values: str, feature: str = "mask") -> Masks:
    """Return what "0:background,1:cat,255:ignored" says; values of one name are one class.

    Raises:
      UsageError: not such a list, or fewer than two classes.
    """
    names: list[str] = []
    classes = {}
    for part in mask_values.split(","):
        value, _, name = (piece.strip() for piece in part.partition(":"))
        if not re.fullmatch("[0-9]{1,3}", value) or int(value) > 255 or not name:
            raise UsageError(
                f"--mask_values={mask_values}: {part!r} is not VALUE:NAME with a value of 0 to "
                "255; write it as 0:background,255:object"
            )
        if int(value) in classes:
            raise UsageError(f"--mask_values={mask_values} names the value {value} twice")
        if name != IGNORED_NAME and name not in names:
            names.append(name)
        classes[int(value)] = IGNORED if name == IGNORED_NAME else names.index(name)
    if not 2 <= len(names) <= IGNORED:
        raise UsageError(
            f"--mask_values={mask_values} names {len(names)} classes; give 2 to {IGNORED}, as in "
            "0:background,255:object"
        )
    return Masks(feature, tuple(names), classes)


def in_order(names: Sequence[str]) -> Masks:
    """The value of each class is its number, and 255 is ignored, as in VOC."""
    return Masks("mask", tuple(names), {i: i for i in range(len(names))} | {255: IGNORED})


def read_mask(encoded: bytes, place: str) -> UInt8[np.ndarray, "h w"]:
    """Return the values of a mask's pixels; of a palette, the numbers.

    Grey of 1 bit (0 and 255), 8 and 16 bits is read, also where it is stored as colour.

    Raises:
      UsageError: no image, colours, or values above 255.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            values = np.asarray(image.convert("L") if image.mode == "1" else image)
    except Exception as error:  # Pillow's decoders raise errors of a dozen types
        raise UsageError(f"{place} is not a readable image ({error}); replace it") from None
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[-1] > 2 else values[..., :1]  # not transparency
        values = values[..., 0] if (colours == colours[..., :1]).all() else values
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise UsageError(f"{place} is no grey image, whose values are classes; convert it")
    if values.min() < 0 or values.max() > 255:
        raise UsageError(f"{place} holds {values.max()}; classes have the values 0 to 255")
    return values.astype(np.uint8)


class MaskedSource:
    """source[i] with "image", encoded, and "mask", uint8 [h, w] of classes and IGNORED."""

    def __init__(self, source: Sequence, masks: Masks, name: str):
        self._source, self._masks, self._name = source, masks, name
        self._classes = np.full(256, -1, np.int16)
        for value, number in masks.classes.items():
            self._classes[value] = number

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        example = self._source[index]
        place = f"the mask of example {index} of {self._name}"
        values = read_mask(example[self._masks.feature], place)
        mask = self._classes[values]
        if (mask < 0).any():
            raise UsageError(
                f"{place} holds {values[mask < 0][0]}, which is none of its "
                f"{len(self._masks.class_names)} classes; mend the mask, or name the value in "
                "--mask_values"
            )
        named = {"filename": example["filename"]} if "filename" in example else {}
        return {"image": example["image"], "mask": mask.astype(np.uint8), **named}


class DrawnMasks:
    """The same of COCO's objects, drawn; 0 is where none is.

    A pixel of objects of several classes is IGNORED, as in torchvision's training on COCO.
    """

    def __init__(self, source: coco.COCOSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        example = self._source[index]
        width, height = example["size"]
        mask = np.zeros((height, width), np.uint8)
        objects = example["objects"]
        for encoded, label in zip(objects["segmentation"], objects["label"], strict=True):
            own = run_lengths.decode(encoded).astype(bool)
            other = own & (mask != 0) & (mask != label + 1)
            mask[own] = label + 1
            mask[other] = IGNORED
        return {"image": example["image"], "mask": mask, "filename": example["filename"]}


class VOCFolder:
    """source[i] of a folder that is built as PASCAL VOC's: the bytes of the photo and of its mask.

    ImageSets/Segmentation/SPLIT.txt lists names, one a line; JPEGImages and SegmentationClass have
    an image file of each, in any format.
    """

    def __init__(self, folder: Path, split: str):
        file = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not file.exists():
            known = [each.stem for each in file.parent.glob("*.txt")]
            if not known:
                raise UsageError(f"{folder} is no VOC folder: there is no {file.parent}")
            raise errors.unknown(f"split of voc:{folder}", split, known)
        self.names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
        if not self.names:
            raise UsageError(f"{file} lists no images; choose another split")
        self._files = {
            feature: _files_of(self.names, folder / own, file)
            for feature, own in (("image", "JPEGImages"), ("mask", "SegmentationClass"))
        }

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        own = {feature: files[index] for feature, files in self._files.items()}
        try:
            content = {feature: file.read_bytes() for feature, file in own.items()}
        except OSError as error:
            raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
        return {**content, "filename": str(own["image"])}

    def masks(self) -> Iterator[bytes]:
        """The files of the masks, one after the other."""
        return (file.read_bytes() for file in self._files["mask"])


def _files_of(names: Sequence[str], folder: Path, listed: Path) -> list[Path]:
    """The image file of each name in a folder."""
    readable = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    by_name = {file.stem: file for file in there if file.suffix.lower() in readable}
    missing = [name for name in names if name not in by_name]
    if missing:
        some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise UsageError(
            f"{folder} lacks the image files of {len(missing)} of the {len(names)} names in "
            f"{listed}: {some}; add them, or take the names out"
        )
    return [by_name[name] for name in names]


def load(
    name: str, split: str, data_dir: str | None = None, mask_values: str | None = None
) -> Dataset:
    """Open one split of a data set with masks; its classes are those of the pixels.

    Args:
      name: "shapes"; "oxford_iiit_pet" (prepared by TFDS); "coco:FOLDER", see data.coco; or
        "voc:FOLDER", PASCAL VOC's own (TFDS's voc has no masks) or one that is built like it. That
        one names its classes in mask_values, or in the order of their values in
        FOLDER/class_names.txt, as labelme writes it.
      split, data_dir: as of datasets.load; of voc:FOLDER, a file of ImageSets/Segmentation.
      mask_values: what the values in voc:FOLDER's masks mean, see parse.

    Raises:
      UsageError: unknown names, no such data, or masks of which nothing can be learnt since all
        but one class is ignored.
    """
    if mask_values is not None and not name.startswith(VOC):
        raise UsageError(f"--mask_values is for voc:FOLDER; {name} has classes of its own")
    if name.startswith(coco.PREFIX):
        dataset = _load_coco(name, split)
    elif name.startswith(VOC):
        folder = VOCFolder(Path(name.removeprefix(VOC)).expanduser(), split)
        dataset = Dataset(name, split, folder, 0, (), (None, None, 3), *datasets.IMAGENET)
        dataset = _with_masks(dataset, _voc_masks(folder, name, mask_values))
    elif datasets.own(name):
        dataset = datasets.load(name, split, data_dir)
        if len(dataset.source) and "mask" not in dataset.source[0]:
            raise UsageError(f'the examples of {name} have no "mask"; see data.datasets.Own')
        dataset = _with_masks(dataset, in_order(dataset.class_names))
    else:
        dataset = datasets.load(name, split, data_dir)
        dataset = _with_masks(dataset, _masks(name, dataset))
    _check_classes(dataset)
    return dataset


def splits(name: str, data_dir: str | None = None) -> tuple[str, str]:
    """Return the names of the splits to train on and to report results on."""
    if name.startswith(VOC):
        return "train", "val"
    return datasets.training_split(name, data_dir), datasets.evaluation_split(name, data_dir)


def _with_masks(dataset: Dataset, masks: Masks) -> Dataset:
    return dataset._replace(
        source=MaskedSource(dataset.source, masks, f"{dataset.name} ({dataset.split})"),
        num_classes=len(masks.class_names),
        class_names=masks.class_names,
    )


def _masks(name: str, dataset: Dataset) -> Masks:
    if name == "shapes":
        names = ("background", *dataset.class_names)
        return Masks("segmentation_mask", names, {i: i for i in range(len(names))})
    if name == "oxford_iiit_pet":
        return Masks("segmentation_mask", ("background", "pet"), {1: 1, 2: 0, 3: IGNORED})
    known = ("shapes", "oxford_iiit_pet", "voc:FOLDER (VOC2012's, or one like it)", "coco:FOLDER")
    raise errors.unknown("data set with masks", name, known)


def _load_coco(name: str, split: str) -> Dataset:
    dataset = datasets.load_coco(name, split)
    if dataset.source.unmasked:
        raise UsageError(
            f"{dataset.source.unmasked} annotations of {name} ({split}) have no segmentation; "
            "segmenting needs all of them, detect --model=fasterrcnn_resnet10_fpn none"
        )
    if dataset.num_classes >= IGNORED:
        raise UsageError(f"{name} has {dataset.num_classes} classes; masks hold {IGNORED - 1}")
    names = ("background", *dataset.class_names)
    return dataset._replace(
        source=DrawnMasks(dataset.source), num_classes=len(names), class_names=names
    )


def _voc_masks(folder: VOCFolder, name: str, mask_values: str | None) -> Masks:
    """What the values of the masks mean: as told, as the folder tells, or VOC's own."""
    if mask_values is not None:
        return parse(mask_values)
    file = Path(name.removeprefix(VOC)).expanduser() / "class_names.txt"
    if file.exists():
        names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
        names = [each for each in names if each != "__ignore__"]  # labelme's own list has it first
        if not 2 <= len(set(names)) == len(names) <= IGNORED:
            raise UsageError(f"{file} must hold 2 to {IGNORED} different names, one a line")
        return in_order(names)
    if _is_voc(folder):
        return in_order(VOC_CLASSES)
    values: set[int] = set()
    for i, mask in zip(range(20), folder.masks(), strict=False):
        values.update(np.unique(read_mask(mask, f"the mask of {folder.names[i]!r}")).tolist())
    raise UsageError(
        f"{name} is not PASCAL VOC itself, so the classes of its masks have no names; say what "
        f"their values mean, as in --mask_values={_suggestion(values)} (those of the first masks; "
        f"'{IGNORED_NAME}' for pixels that do not count)"
    )


def _suggestion(values: set[int]) -> str:
    if values <= {0, 255}:
        return "0:background,255:object"
    names = {0: "background", 255: IGNORED_NAME}
    return ",".join(f"{value}:{names.get(value, f'class{value}')}" for value in sorted(values))


def _is_voc(folder: VOCFolder) -> bool:
    """Whether the images are called as VOC's from 2008 on, or as 2007's with VOC's palette."""
    if all(re.fullmatch(r"20\d\d_\d{6}", name) for name in folder.names):
        return True
    if not all(re.fullmatch(r"\d{6}", name) for name in folder.names):
        return False
    with Image.open(io.BytesIO(next(folder.masks()))) as mask:
        return tuple((mask.getpalette() or [])[3:12]) == _VOC_COLOURS


def _check_classes(dataset: Dataset) -> None:
    """Raise UsageError where ignoring leaves one class or none; mostly the first mask tells."""
    found: set[int] = set()
    for i in range(len(dataset.source)):
        found.update(np.unique(dataset.source[i]["mask"]).tolist())
        if len(found - {IGNORED}) > 1:
            return
    if IGNORED in found:
        left = [repr(dataset.class_names[i]) for i in found - {IGNORED}]
        remedy = "mend the masks"
        if dataset.name.startswith(VOC):
            remedy = "if these are an object, say so: --mask_values=0:background,255:object"
        raise UsageError(
            f"all masks of {dataset.name} ({dataset.split}) hold {''.join(left) or 'no class'} and "
            f"pixels that are ignored, so there is nothing to tell apart; {remedy}"
        )
