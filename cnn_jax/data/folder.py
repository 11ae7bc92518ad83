"""A user's own images as a data set: a folder with one sub-folder a class, or a CSV file."""

import csv
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
    """The splits of a folder or a CSV file: those it has, else "train" and "test"."""
    return ("train", "test") if is_split_by_chance(path) else _own_splits(path)


def is_split_by_chance(path: str) -> bool:
    """Whether "test" is drawn from a folder or a CSV file that has no split but to train on."""
    return _own_splits(path) in ((), ("train",))


def _own_splits(path: str) -> tuple[str, ...]:
    root = _root(path)
    return tuple(_listed(root)[0] if root.is_file() else _split_folders(root))


def load(path: str, split: str) -> tuple[FolderSource, tuple[str, ...]]:
    """Opens a split of PATH/class/image, PATH/train/class/image beside PATH/val/... or a CSV file.

    The splits' folders are called train or training, validation, valid or val, test or testing, in
    upper or lower case. Without such sub-folders, a fifth of each class, chosen once and for all by
    a seeded shuffle of the sorted file names, is the split "test". Any format that Pillow reads
    counts as an image; hidden files and folders do not, nor those of operating systems (.DS_Store,
    .ipynb_checkpoints, __MACOSX, Thumbs.db, @eaDir). Links are followed, but to no place twice.
    Folders within a class's folder are no classes of their own. Labels follow the sorted class
    names, of train/ where there is one.

    The first line of a CSV file names its columns file, class and, if there are splits, split;
    files are relative to its folder.

    Files of the same content in two splits are told by a warning; in folders where that takes
    reading more than COMPARED_BYTES, by `verify` alone.

    Args:
      path: the folder, or a file whose name ends in .csv.
      split: "train", "validation", "test" as far as there, or a slice "train[:90%]".

    Returns:
      The images, in a fixed random order, and the class names.

    Raises:
      UsageError: no such folder or split, fewer than two classes, a class without images, two
        folders for one split, a train/ of which nobody can tell whether it is a class, or a line of
        a CSV file that cannot be meant.
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
    if root.is_file():
        by_split, class_names = _listed(root)
    else:
        folders = _split_folders(root) or {"train": root}
        class_names = _class_names([folders["train"]] if "train" in folders else folders.values())
        by_split = {name: _list_images(at, class_names) for name, at in folders.items()}
        _tell_of_nested(folders, by_split)
    if by_split.keys() == {"train"}:
        by_split = _split_by_class(by_split["train"], class_names)
    return by_split, class_names


def _listed(path: Path) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The files of each split in a CSV file, without splits all "train", and the class names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}; it must be a CSV file in UTF-8") from error
    if not {"file", "class"} <= set(columns):
        raise UsageError(
            f"the first line of {path} must name the columns file and class, and split if there "
            f"are splits; it is {','.join(columns)!r}"
        )
    found = defaultdict(list)
    for line, row in rows:
        file, name = ((row[column] or "").strip() for column in ("file", "class"))
        given = (row.get("split") or "").strip() if "split" in columns else "train"
        split = _SPLITS.get(given.lower())
        if not file or not name or split is None:
            wrong = "no file" if not file else "no class" if not name else f"the split {given!r}"
            raise UsageError(
                f"line {line} of {path} has {wrong}; write a file, its class, and as its split "
                "train, validation or test"
            )
        found[split].append((path.parent / Path(file).expanduser(), name))
    names = {name for _, name in found.get("train") or chain.from_iterable(found.values())}
    class_names = _at_least_two(names, str(path), "name images of two or more")
    numbers = {name: number for number, name in enumerate(class_names)}
    by_split = {}
    for split in (each for each in dict.fromkeys(_SPLITS.values()) if each in found):
        _check_known({name for _, name in found[split]}, class_names, f"{split} of {path}")
        by_split[split] = sorted((file, numbers[name]) for file, name in found[split])
    return by_split, class_names


def _tell_of_nested(folders: Mapping[str, Path], by_split: Mapping[str, Files]) -> None:
    """Warn where images lie in folders within those of the classes, and only there."""
    split, folder = next(iter(folders.items()))
    holding = {path.parent for path, _ in by_split[split]}
    names = sorted(path.name for path in _sub_folders(folder))
    if len(holding) > len(names) and holding.isdisjoint(folder / name for name in names):
        _warn(
            f"the classes are the {len(names)} folders in {folder} ({', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}), not the {len(holding)} within them; for these "
            "or others write a CSV file of files and classes (folder:FILE.csv)"
        )


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
    if not (root.is_dir() or (root.suffix.lower() == ".csv" and root.is_file())):
        raise UsageError(
            f"no such folder: {path}; give folder:PATH with one sub-folder a class, or "
            "folder:FILE.csv"
        )
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
    names = {path.name for folder in folders for path in _sub_folders(folder)}
    where = " and ".join(map(str, folders))
    return _at_least_two(names, where, "make one sub-folder of images for each class")


def _at_least_two(names: set[str], where: str, advice: str) -> tuple[str, ...]:
    """The class names, sorted."""
    if len(names) < 2:
        found = f"one class ({min(names)})" if names else "no class"
        raise UsageError(f"{where} has {found}; {advice}")
    return tuple(sorted(names))


def _check_known(names: set[str], class_names: Sequence[str], where: str) -> None:
    if unknown := sorted(names - set(class_names)):
        raise UsageError(f"{where} has classes that train lacks: {', '.join(unknown)}")


def _list_images(folder: Path, class_names: tuple[str, ...]) -> Files:
    _check_known({path.name for path in _sub_folders(folder)}, class_names, str(folder))
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


def _split_by_class(files: Files, class_names: Sequence[str]) -> dict[str, Files]:
    random = np.random.RandomState(0)
    splits = {"train": [], "test": []}
    for label in sorted({label for _, label in files}):
        members = [file for file in files if file[1] == label]
        members = [members[i] for i in random.permutation(len(members))]
        if len(members) < 2:
            raise UsageError(
                f"only one image of the class {class_names[label]}, {members[0][0]}: too few to "
                "train and to test; add some, or name the splits yourself"
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
