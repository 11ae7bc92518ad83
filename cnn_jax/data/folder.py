"""A user's own folder of images as a data set: one sub-folder a class."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cnn_jax import errors
from cnn_jax.data import decoding
from cnn_jax.errors import UsageError

TEST_FRACTION = 0.2
_SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}


class FolderSource:
    """Image files by number: source[i] has "image" (the file's bytes), "label" and "filename".

    Args:
      files: path and label of each image.

    Raises:
      UsageError: on reading, a file that is gone or is no image, by name.
    """

    def __init__(self, files: Sequence[tuple[Path, int]]):
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> list[int]:
        """Every image's label, without reading the files."""
        return [label for _, label in self.files]

    def __getitem__(self, index: int) -> dict:
        path, label = self.files[index]
        try:
            content = path.read_bytes()
            decoding.own_channels(content)  # reads the header only
        except (OSError, UsageError) as error:
            raise _broken([path]) from error
        return {"image": content, "label": label, "filename": str(path)}


def split_names(path: str) -> tuple[str, ...]:
    """The splits of a folder: those it has as sub-folders, else "train" and "test"."""
    present = tuple(_split_folders(_root(path)))
    return present if len(present) > 1 else ("train", "test")


def load(path: str, split: str) -> tuple[FolderSource, tuple[str, ...]]:
    """Opens one split of PATH/class/image, or of PATH/train/class/image beside PATH/validation/...

    Without such sub-folders, a fifth of each class, chosen once and for all by a seeded shuffle of
    the sorted file names, is the split "test". Any format that Pillow reads counts as an image;
    files and folders whose names begin with a dot do not. Labels follow the sorted class names.

    Args:
      path: the folder.
      split: "train", "validation", "test" as far as there, or a slice "train[:90%]".

    Returns:
      The images, in a fixed random order, and the class names.

    Raises:
      UsageError: no such folder or split, fewer than two classes, a class without images.
    """
    root = _root(path)
    folders = _split_folders(root)
    class_names = _class_names(folders.get("train", root))
    if len(folders) > 1:
        by_split = {name: _list_images(at, class_names) for name, at in folders.items()}
    else:
        by_split = _split_by_class(_list_images(folders.get("train", root), class_names))
    random = np.random.RandomState(0)  # its stream is frozen (NEP 19)
    shuffled = {
        name: [files[i] for i in random.permutation(len(files))] for name, files in by_split.items()
    }
    return FolderSource(_slice(shuffled, split, path)), class_names


def verify(path: str) -> int:
    """Decodes every image of a folder and returns their number.

    Raises:
      UsageError: naming the broken files.
    """
    count, broken = 0, []
    for name in split_names(path):
        for file, _ in load(path, name)[0].files:
            count += 1
            try:
                decoding.read(file, 3)
            except UsageError:
                broken.append(file)
    if broken:
        raise _broken(sorted(broken))
    return count


def _broken(paths: Sequence[Path]) -> UsageError:
    named = ", ".join(map(str, paths[:10])) + (", ..." if len(paths) > 10 else "")
    files = "image file" if len(paths) == 1 else f"{len(paths)} image files"
    return UsageError(f"cannot read {files}: {named}; remove or replace, then repeat")


def _root(path: str) -> Path:
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(f"no such folder: {path}; give folder:PATH with one sub-folder a class")
    return root


def _sub_folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits by name; empty unless train/ holds classes."""
    folders = {
        name: root / candidate
        for name, candidates in _SPLIT_FOLDERS.items()
        for candidate in candidates
        if (root / candidate).is_dir()
    }
    # A class may be called "train": then that folder holds images, not folders.
    return folders if "train" in folders and _sub_folders(folders["train"]) else {}


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(path.name for path in _sub_folders(folder))
    if len(names) < 2:
        found = f"one class ({names[0]})" if names else "no class"
        raise UsageError(f"{folder} has {found}; make one sub-folder of images for each class")
    return names


def _list_images(folder: Path, class_names: tuple[str, ...]) -> list[tuple[Path, int]]:
    unknown = {path.name for path in _sub_folders(folder)} - set(class_names)
    if unknown:
        raise UsageError(f"{folder} has classes that train/ lacks: {', '.join(sorted(unknown))}")
    readable = {
        ext for ext, format in Image.registered_extensions().items() if format in Image.OPEN
    }
    files = []
    for label, name in enumerate(class_names):
        images = sorted(
            Path(parent) / file
            for parent, _, names in os.walk(folder / name, followlinks=True)
            for file in names
            if Path(file).suffix.lower() in readable and not file.startswith(".")
        )
        if not images and (folder / name).is_dir():  # a validation folder may lack classes
            raise UsageError(f"no images in {folder / name}; add some or remove the folder")
        files += [(image, label) for image in images]
    return files


def _split_by_class(files: list[tuple[Path, int]]) -> dict[str, list[tuple[Path, int]]]:
    random = np.random.RandomState(0)
    splits = {"train": [], "test": []}
    for label in sorted({label for _, label in files}):
        members = [file for file in files if file[1] == label]
        members = [members[i] for i in random.permutation(len(members))]
        if len(members) < 2:
            raise UsageError(
                f"only one image in {members[0][0].parent}: too few to train and to test; add some"
            )
        test = max(1, round(TEST_FRACTION * len(members)))
        splits["test"] += members[:test]
        splits["train"] += members[test:]
    return splits


def _slice(by_split: dict[str, list], split: str, path: str) -> list:
    if split in by_split:
        return by_split[split]
    name = re.match(r"\w*", split)[0]
    if name not in by_split:
        raise errors.unknown(f"split of {path}", name, by_split)
    from tensorflow_datasets.core import splits  # takes two seconds

    infos = {
        name: splits.SplitInfo(name=name, shard_lengths=[len(files)], num_bytes=0)
        for name, files in by_split.items()
    }
    try:
        ranges = splits.ReadInstruction.from_spec(split).to_absolute(infos)
    except (ValueError, KeyError, AssertionError) as error:
        raise UsageError(
            f"cannot read the split {split!r}; write it as train, train[:90%] or train[1000:]"
        ) from error
    return [file for part in ranges for file in by_split[part.splitname][part.from_ : part.to]]
