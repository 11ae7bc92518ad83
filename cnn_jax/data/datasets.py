"""Data sets by name, read example by example in any order, without TensorFlow."""

import bisect
import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cnn_jax import errors, plugins
from cnn_jax.data import coco, decoding, folder, slices
from cnn_jax.data.preparation import EMBEDDED, FROM_ORIGINALS, locate, prepare
from cnn_jax.data.tfrecord import TFRecordSource
from cnn_jax.errors import UnreadableImage, UsageError

__all__ = [
    "Dataset",
    "class_counts",
    "evaluation_split",
    "labels",
    "load",
    "prepare",
    "training_split",
]


class Dataset(NamedTuple):
    """One split of a data set.

    Attributes:
      name: as given to `load`.
      split: as given to `load`.
      source: random access, picklable and thread safe; source[i] is a dict with "image" (bytes of
        the PNG or JPEG file), "label" (int) and the data set's other features. Every image among
        the features, such as a mask, stays encoded.
      num_classes: the number of classes.
      class_names: their names, in the order of the labels.
      image_shape: (height, width, channels); None where it varies.
      mean: of each channel over the training pixels, in 0..1 units.
      std: their standard deviation, in 0..1 units.
      skipped: if given, images that cannot be decoded are passed over and what is wrong with them
        is kept here; else the first one ends the reading.
    """

    name: str
    split: str
    source: Sequence
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: set[str] | None = None


# Mean and standard deviation of the training pixels, by channel.
STATISTICS = {
    # Computed here from all pixels of the training split; tests/data/test_builders.py repeats it.
    "digits": ((0.3058,), (0.3764,)),
    "shapes": ((0.4688, 0.4728, 0.4801), (0.2285, 0.2249, 0.2274)),
    # github.com/pytorch/examples, mnist/main.py
    "mnist": ((0.1307,), (0.3081,)),
    # As widely used with torchvision.datasets.FashionMNIST.
    "fashion_mnist": ((0.2860,), (0.3530,)),
    # Of all training pixels; the often seen std of .2023, .1994, .2010 is the mean over the images
    # of each image's own.
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    # github.com/weiaicunzai/pytorch-cifar100, conf/global_settings.py
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
# torchvision.models: ImageNet's; taken for all other colour images.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PREFIXES = ("folder:", coco.PREFIX, "voc:")  # of the names of folders
# ITU-R 601, which Pillow's convert("L") weights red, green and blue with.
_LUMA = (0.299, 0.587, 0.114)
# No statistic: what is transparent becomes -1, what is opaque 1.
ALPHA = (0.5, 0.5)


class Own(NamedTuple):
    """A data set from outside of this package.

    load(split, data_dir) -> Dataset, of one of its splits, whole. Its examples have "image" and
      "label"; for detection "objects", for segmentation "mask", an image file whose values are the
      numbers of the classes, and 255 where a pixel does not count.
    splits: the names of the one to train on and of the one to report results on.
    """

    load: Callable[[str, str | None], Dataset]
    splits: tuple[str, str] = ("train", "test")


OWN: dict[str, Own] = {}


def register_dataset(
    name: str,
    load: Callable[[str, str | None], Dataset],
    splits: tuple[str, str] = ("train", "test"),
) -> None:
    """Let every command know a data set by this name; see Own.

    Raises:
      UsageError: the name is taken.
    """
    if name in (*EMBEDDED, *FROM_ORIGINALS):
        raise UsageError(f"there is a data set {name!r} already; register yours by another name")
    plugins.register(OWN, "data set", name, Own(load, splits))


def own(name: str) -> Own | None:
    """Return the data set that was registered, or is written "package.module:function", if any.

    Raises:
      UsageError: no such module or function.
    """
    if name.startswith(PREFIXES) or not plugins.is_address(name):
        return OWN.get(name)
    found = plugins.find(name, "data set")
    if isinstance(found, Own) or not callable(found):
        raise UsageError(f"the data set {name} is no function f(split, data_dir)")
    return Own(found)


def _load_own(own: Own, name: str, split: str, data_dir: str | None) -> Dataset:
    whole = re.match(r"\w*", split)[0]
    dataset = own.load(whole, data_dir)
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"the data set {name} gave a {type(dataset).__name__}; its function must return a "
            "cnn_jax.data.datasets.Dataset, as cnn_jax.data.arrays.from_arrays makes one"
        )
    dataset = dataset._replace(name=name, split=split)
    if split == whole:
        return dataset
    part = slices.of_split(split, {whole: len(dataset.source)})
    return dataset._replace(source=slices.Part(dataset.source, [i for _, i in part]))


def load(name: str, split: str, data_dir: str | None = None) -> Dataset:
    """Opens one split of a data set.

    Args:
      name: "digits", "shapes" (made on first use), a data set prepared under `data_dir` by any
        program ("cifar10", "imagenet2012", "imagenet_resized/64x64", "mnist:3.0.1"), or
        "folder:PATH", images in one sub-folder a class, or as a CSV file names them, which are
        read in colour; one that was registered, or "package.module:function", see Own.
      split: "train", "test", ..., or a slice in TFDS's notation: "train[:90%]".
      data_dir: where data sets lie; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      UsageError: unknown name or split; not prepared; not a data set of labelled images.
    """
    if name.startswith("folder:"):
        return _load_folder(name, split)
    if name.startswith(coco.PREFIX):
        raise UsageError(
            f"{name} has objects, and no class of an image as a whole; it is for detect, "
            "compare_detectors and segment"
        )
    if found := own(name):
        return _load_own(found, name, split, data_dir)
    info = _open(name, data_dir)
    image, classes = _image_and_classes(name, info.features)
    mean, std = STATISTICS.get(re.split("[/:]", name)[0], IMAGENET)
    dataset = Dataset(
        name=name,
        split=split,
        source=_open_records(name, info, split),
        num_classes=classes.num_classes,
        class_names=tuple(classes.names),
        image_shape=(*image.shape[:2], len(mean)),
        mean=mean,
        std=std,
    )
    return read_as(dataset, image.shape[-1] or 3)


def read_as(
    dataset: Dataset,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Returns the data set with its images read in so many channels, normalised by these numbers.

    Args:
      channels: 1 for grey, 3 for colour, 4 for colour and transparency, see decoding.decode; by
        default as they are.
      mean, std: of each channel, in 0..1 units; by default the data set's: of grey images the same
        for each colour, of colours as grey those weighted as luma, of transparency 0.5.

    Raises:
      UsageError: other numbers of channels or of values, or values out of range.
    """
    *size, own = dataset.image_shape
    channels = channels or own
    if channels not in decoding.MODES:
        raise UsageError(f"images of {channels} channels are not supported; use 1, 3 or 4")
    for name, values, valid in (
        ("mean", mean, lambda value: 0 <= value <= 1),
        ("std", std, lambda value: 0 < value <= 1),
    ):
        if values is not None and len(values) != channels:
            raise UsageError(
                f"{len(values)} values of {name} do not fit images of {channels} channels; "
                "give one for each channel"
            )
        if not all(map(valid, values or ())):
            raise UsageError(f"{name} {values} is out of range; give it for values of 0 to 1")
    return dataset._replace(
        image_shape=(*size, channels),
        mean=tuple(mean or _in_channels(dataset.mean, channels, ALPHA[0])),
        std=tuple(std or _in_channels(dataset.std, channels, ALPHA[1])),
    )


def _in_channels(values: tuple[float, ...], channels: int, alpha: float) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    colours = values[:3] if len(values) > 1 else values * 3
    if channels == 1:
        grey = sum(weight * value for weight, value in zip(_LUMA, colours, strict=True))
        return (round(grey, 3),)
    return colours if channels == 3 else (*colours, alpha)


def labels(dataset: Dataset) -> Int[np.ndarray, " n"]:
    """Return every example's class; a folder's are known, records are read one by one.

    Raises:
      UsageError: an example without one of the classes.
    """
    known = getattr(dataset.source, "labels", None)
    if known is None:
        known = (dataset.source[i]["label"] for i in range(len(dataset.source)))
    found = np.fromiter(known, np.int64, len(dataset.source))
    wrong = np.flatnonzero((found < 0) | (found >= dataset.num_classes))
    if len(wrong):
        raise UsageError(
            f"example {wrong[0]} of {dataset.name} ({dataset.split}) has label {found[wrong[0]]}, "
            f"which is none of its {dataset.num_classes} classes; take another split"
        )
    return found


def class_counts(dataset: Dataset) -> Int[np.ndarray, " classes"]:
    """Return the number of examples of each class."""
    return np.bincount(labels(dataset), minlength=dataset.num_classes)


def fingerprint(dataset: Dataset) -> str:
    """Return how many examples and classes there are, and a digest of some images and all names.

    Raises:
      UsageError: an image is missing.
    """
    count = len(dataset.source)
    digest = hashlib.sha256(json.dumps(dataset.class_names).encode())
    for index in np.unique(np.linspace(0, count - 1, 16).astype(int)):
        with contextlib.suppress(UnreadableImage):  # told, or skipped, where it is read
            digest.update(dataset.source[int(index)]["image"])
    return f"{count} examples of {dataset.num_classes} classes, {digest.hexdigest()[:8]}"


def training_split(name: str, data_dir: str | None = None) -> str:
    """The split to train on: "train", or its first nine tenths where there is no other split."""
    return _default_splits(name, data_dir)[0]


def evaluation_split(name: str, data_dir: str | None = None) -> str:
    """The split to report results on: "test", or "validation" where test has no annotation.

    Where there is only "train", its last tenth: train on `training_split` then.
    """
    return _default_splits(name, data_dir)[1]


def _default_splits(name: str, data_dir: str | None) -> tuple[str, str]:
    if name.startswith("folder:"):
        splits = folder.split_names(name.removeprefix("folder:"))
        return "train", "test" if "test" in splits else "validation"
    if name.startswith(coco.PREFIX):
        return coco.splits(name.removeprefix(coco.PREFIX))
    if found := own(name):
        return found.splits
    info = _open(name, data_dir)
    if "test" in info.splits and _is_annotated(_open_records(name, info, "test")):
        return "train", "test"
    if "validation" in info.splits:
        return "train", "validation"
    if list(info.splits) == ["train"]:
        return "train[:90%]", "train[90%:]"
    raise UsageError(f"data set {name!r} has no usual split, name one of: {', '.join(info.splits)}")


def _is_annotated(examples: "ExampleSource") -> bool:
    """Whether labels, or objects in one of the first images, came with a split."""
    if "objects" not in examples[0]:
        return examples[0].get("label", 0) >= 0
    first = (examples[i] for i in range(min(len(examples), 20)))
    return any(len(example["objects"]["bbox"]) for example in first)


def _open(name: str, data_dir: str | None):
    """The tfds.core.DatasetInfo of a prepared data set."""
    import tensorflow_datasets as tfds  # takes two seconds, so not at the top

    path = locate(name, data_dir)
    try:
        return tfds.builder_from_directory(path).info
    except ValueError as error:  # written by TFDS before 4.0, without features.json
        raise UsageError(f"cannot read {path}, prepare it again: {error}") from error


def _image_and_classes(name: str, features):
    """The image feature and the ClassLabel, the objects' where the image as a whole has none."""
    import tensorflow_datasets as tfds

    features = dict(features.items())
    image, label = features.get("image"), features.get("label")
    if label is None and "objects" in features:
        label = dict(features["objects"].feature.items()).get("label")
    if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
        return image, label
    raise UsageError(
        f"data set {name!r} has no image with a class label; it has: {', '.join(sorted(features))}"
    )


def _open_records(name: str, info, split: str) -> "ExampleSource":
    from tensorflow_datasets.core.data_sources.base import file_instructions

    split_name = re.match(r"\w*", split)[0]
    if split_name not in info.splits:
        raise errors.unknown(f"split of {name}", split_name, info.splits)
    try:
        files = file_instructions(info, split)
    except (ValueError, KeyError, AssertionError) as error:
        raise slices.unreadable(split, error) from error
    for file in files:
        if not Path(file.filename).exists():
            raise UsageError(f"missing file {file.filename}: copy or prepare {name!r} again")
    if info.file_format.value == "tfrecord":
        records = TFRecordSource(files)
    elif info.file_format.value == "array_record":
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        _allow_open_files(len(files))
        records = ArrayRecordDataSource(files)
    else:
        raise UsageError(
            f"data set {name!r} is in {info.file_format.value} format, which is not read here; "
            "prepare it again in another --data_dir"
        )
    return ExampleSource(records, info.features, files)


def _allow_open_files(count: int) -> None:
    """Raises the process's soft limit, often 1024: array_record keeps every shard open."""
    import resource  # Unix only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
    if count > soft // 2:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class ExampleSource:
    """Serialised tf.train.Example records as dicts of features; images stay encoded.

    files: that the records lie in, in order, as in tfrecord.TFRecordSource.
    """

    def __init__(self, records: Sequence, features, files: Sequence):
        import tensorflow_datasets as tfds

        self._records = records
        self._files = files
        self._features = features
        self._decoders = {
            key: tfds.decode.SkipDecoding()
            for key, feature in features.items()
            if isinstance(feature, tfds.features.Image)
        }

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        try:
            record = self._records[index]
        except (OSError, RuntimeError) as error:  # array_record's own are RuntimeErrors
            reason = " ".join(str(error).split())
            raise UsageError(
                f"cannot read example {index}, in {self._file_of(index)}: {reason}; copy or "
                "prepare the data set again"
            ) from error
        return self._features.deserialize_example_np(record, decoders=self._decoders)

    def _file_of(self, index: int) -> str:
        ends = list(itertools.accumulate(file.take for file in self._files))
        return self._files[bisect.bisect_right(ends, index)].filename


def load_coco(name: str, split: str) -> Dataset:
    """Open one split of "coco:FOLDER", whose source has objects and no labels; see data.coco.

    Raises:
      UsageError: as coco.load.
    """
    source, class_names = coco.load(name.removeprefix(coco.PREFIX), split)
    shape = (None, None, 3)
    return Dataset(name, split, source, len(class_names), class_names, shape, *IMAGENET)


def _load_folder(name: str, split: str) -> Dataset:
    source, class_names = folder.load(name.removeprefix("folder:"), split)
    return Dataset(
        name=name,
        split=split,
        source=source,
        num_classes=len(class_names),
        class_names=class_names,
        image_shape=(None, None, 3),
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )
