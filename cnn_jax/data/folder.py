"""A user's own folder of images as a data set: one sub-folder a class."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from absl import logging
from PIL import Image

from cnn_jax import errors
from cnn_jax.data import decoding, slices
from cnn_jax.errors import UnreadableImage, UsageError

TEST_FRACTION = 0.2
_SPLITS = {  # by the name of its folder, in lower case
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
# What operating systems, archives and servers leave behind, in lower case.
_SYSTEM = {
    *("__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "desktop.ini"),
}
# The most that is read to find copies each time a folder is opened.
COMPARED_BYTES = 2**28

Files = list[tuple[Path, int]]  # of each image, the path and the label


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
        except OSError as error:
            raise _broken({path: error}) from error
        except UsageError as error:
            raise UnreadableImage(str(_broken({path: error}))) from error
        return {"image": content, "label": label, "filename": str(path)}


def split_names(path: str) -> tuple[str, ...]:
    """The splits of a folder: those it has as sub-folders, else "train" and "test"."""
    present = tuple(_split_folders(_root(path)))
    return ("train", "test") if present in ((), ("train",)) else present


def load(path: str, split: str) -> tuple[FolderSource, tuple[str, ...]]:
    """Opens one split of PATH/class/image, or of PATH/train/class/image beside PATH/val/...

    The splits' folders are called train or training, validation, valid or val, test or testing, in
    upper or lower case. Without such sub-folders, a fifth of each class, chosen once and for all by
    a seeded shuffle of the sorted file names, is the split "test". Any format that Pillow reads
    counts as an image; hidden files and folders do not, nor those of operating systems (.DS_Store,
    .ipynb_checkpoints, __MACOSX, Thumbs.db, @eaDir). Links are followed, but to no place twice.
    Labels follow the sorted class names.

    Files of the same content in two splits are told by a warning; in folders where that takes
    reading more than COMPARED_BYTES, by `verify` alone.

    Args:
      path: the folder.
      split: "train", "validation", "test" as far as there, or a slice "train[:90%]".

    Returns:
      The images, in a fixed random order, and the class names.

    Raises:
      UsageError: no such folder or split, fewer than two classes, a class without images, two
        folders for one split, or a train/ of which nobody can tell whether it is a class.
    """
    by_split, class_names = _open(path)
    if copies := _copies(by_split, COMPARED_BYTES):
        _warn(_told(copies))
    random = np.random.RandomState(0)  # its stream is frozen (NEP 19)
    shuffled = {
        name: [files[i] for i in random.permutation(len(files))] for name, files in by_split.items()
    }
    return FolderSource(_slice(shuffled, split, path)), class_names


def verify(path: str, channels: int = 3, say: Callable[[str], None] = lambda line: None) -> int:
    """Decodes every image of a folder as training does and returns their number.

    Args:
      channels: those that training takes, see decoding.decode.
      say: is told, in one line each, what fits together badly but can be trained on: files of the
        same content in two splits, images of another number of channels.

    Raises:
      UsageError: naming the broken files.
    """
    if channels not in decoding.MODES:
        raise UsageError(f"images of {channels} channels are not supported; use 1, 3 or 4")
    by_split, _ = _open(path)
    own, broken = Counter(), {}
    for file, _ in sorted(chain.from_iterable(by_split.values())):
        try:
            encoded = file.read_bytes()
            decoding.decode(encoded, channels)
            own[decoding.own_channels(encoded)] += 1
        except (OSError, UsageError) as error:
            broken[file] = error
    if broken:
        raise _broken(broken)
    if copies := _copies(by_split):
        say(_told(copies))
    count = own.total()
    if own[4] and channels != 4:
        say(f"{own[4]} of {count} images have transparency, which is put on white")
    if own[1] == count and channels != 1:
        say("all images are grey; --channels=1 reads one channel")
    if own[3] and channels == 1:
        say(f"{own[3]} of {count} images have colours, which become grey")
    return count


def _open(path: str) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The files of each split, in order, and the class names."""
    root = _root(path)
    folders = _split_folders(root)
    if folders.keys() <= {"train"}:
        folder = folders.get("train", root)
        class_names = _class_names([folder])
        return _split_by_class(_list_images(folder, class_names)), class_names
    class_names = _class_names([folders["train"]] if "train" in folders else folders.values())
    return {name: _list_images(at, class_names) for name, at in folders.items()}, class_names


@cache  # each once
def _warn(text: str) -> None:
    logging.warning("%s", text)


def _copies(
    by_split: Mapping[str, Files], most_bytes: float = float("inf")
) -> list[tuple[Path, Path]]:
    """Pairs of files of the same content in two splits; none where that takes reading more."""
    by_size = defaultdict(list)
    for split, files in by_split.items():
        for path, _ in files:
            by_size[path.stat().st_size if path.exists() else None].append((split, path))
    by_size.pop(None, None)  # links to nothing
    alike = {
        size: group for size, group in by_size.items() if len({split for split, _ in group}) > 1
    }
    if sum(size * len(group) for size, group in alike.items()) > most_bytes:
        return []
    pairs = []
    for group in alike.values():
        first = {}  # by content: the split and the path
        for split, path in group:
            content = hashlib.blake2b(path.read_bytes()).digest()
            other, original = first.setdefault(content, (split, path))
            if other != split:
                pairs.append((original, path))
    return pairs


def _told(copies: Sequence[tuple[Path, Path]]) -> str:
    files = "1 image has" if len(copies) == 1 else f"{len(copies)} images have"
    original, copy = copies[0]
    return (
        f"{files} the content of an image of another split, such as {copy} and {original}: "
        "results on one split are too good for what was seen in the other; remove the copies"
    )


def _broken(causes: Mapping[Path, Exception]) -> UsageError:
    """The error that names these files, and why the first of them cannot be read."""
    named = ", ".join(map(str, list(causes)[:10])) + (", ..." if len(causes) > 10 else "")
    first = next(iter(causes.values()))
    reason = str(getattr(first, "strerror", None) or first).partition(";")[0]
    if len(causes) == 1:
        files = "image file"
    else:
        files, reason = f"{len(causes)} image files", f"the first: {reason}"
    return UsageError(f"cannot read {files}: {named} ({reason}); remove or replace, then repeat")


def _root(path: str) -> Path:
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(f"no such folder: {path}; give folder:PATH with one sub-folder a class")
    return root


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _SYSTEM


def _places(path: Path) -> set[str]:
    """The real paths of a folder and of all that it lies in."""
    real = Path(os.path.realpath(path))
    return {os.path.realpath(each) for each in (*path.parents, real, *real.parents)}


def _sub_folders(path: Path) -> list[Path]:
    """The folders in a folder that count, without links to it or to what it lies in."""
    found = sorted(each for each in path.iterdir() if _counts(each.name) and each.is_dir())
    outside = _places(path) if any(each.is_symlink() for each in found) else ()
    return [each for each in found if os.path.realpath(each) not in outside]


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits by name; empty where the folders are classes."""
    folders, others, unlabelled = {}, [], []
    for folder in _sub_folders(root):
        split = _SPLITS.get(folder.name.lower())
        if split is None:
            others.append(folder)
        elif not _sub_folders(folder):
            unlabelled.append(folder)  # images, not classes; or it is a class of such a name
        elif split in folders:
            raise UsageError(f"{folders[split]} and {folder} are both the split {split}; keep one")
        else:
            folders[split] = folder
    if folders.keys() == {"train"}:
        classes = [each for each in others if next(_images(each), None)]
        if classes:
            raise UsageError(
                f"{root} has {folders['train'].name}/ with sub-folders beside {classes[0].name}/: "
                "is that a split or a class? Name the other splits validation and test and move "
                "other folders away, or put the images of a class right into its folder"
            )
    elif "train" not in folders and (len(folders) < 2 and (others or unlabelled)):
        return {}
    for folder in unlabelled if folders else ():
        _warn(f"{folder} has no sub-folder for each class: without labels it does not count")
    return {name: folders[name] for name in dict.fromkeys(_SPLITS.values()) if name in folders}


def _class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    names = tuple(sorted({path.name for folder in folders for path in _sub_folders(folder)}))
    if len(names) < 2:
        found = f"one class ({names[0]})" if names else "no class"
        where = " and ".join(map(str, folders))
        raise UsageError(f"{where} has {found}; make one sub-folder of images for each class")
    return names


def _list_images(folder: Path, class_names: tuple[str, ...]) -> Files:
    unknown = {path.name for path in _sub_folders(folder)} - set(class_names)
    if unknown:
        raise UsageError(f"{folder} has classes that train/ lacks: {', '.join(sorted(unknown))}")
    files = []
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():  # a validation folder may lack classes
            continue
        images = sorted(_images(folder / name))
        if not images:
            raise UsageError(f"no images in {folder / name}; add some or remove the folder")
        files += [(image, label) for image in images]
    return files


def _images(folder: Path) -> Iterator[Path]:
    """The images beneath a folder, each once however many links lead to it."""
    seen = _places(folder) - {os.path.realpath(folder)}
    suffixes = _suffixes()

    def visit(at: str) -> Iterator[Path]:
        real = os.path.realpath(at)
        if real in seen:
            return
        seen.add(real)
        try:
            entries = sorted(os.scandir(at), key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            raise UsageError(f"cannot read the folder {at}: {error.strerror}") from error
        for entry in entries:
            if not _counts(entry.name):
                continue
            if entry.is_dir():
                yield from visit(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in suffixes:
                is_link = entry.is_symlink()
                file = os.path.realpath(entry.path) if is_link else os.path.join(real, entry.name)
                if file not in seen:
                    seen.add(file)
                    yield Path(entry.path)

    yield from visit(os.fspath(folder))


@cache
def _suffixes() -> set[str]:
    """Those of the formats that Pillow reads, in lower case."""
    return {ext for ext, format in Image.registered_extensions().items() if format in Image.OPEN}


def _split_by_class(files: Files) -> dict[str, Files]:
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
    split = re.sub(r"\w+", lambda word: _SPLITS.get(word[0].lower(), word[0]), split)
    if split in by_split:
        return by_split[split]
    name = re.match(r"\w*", split)[0]
    if name not in by_split:
        raise errors.unknown(f"split of {path}", name, by_split)
    lengths = {name: len(files) for name, files in by_split.items()}
    return [by_split[name][i] for name, i in slices.of_split(split, lengths)]
