"""CIFAR-10 and CIFAR-100 as TFDS data sets, from the original files, without TensorFlow."""

import pickle
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from cnn_jax.data.builders.originals import OriginalFile, obtain
from cnn_jax.errors import UsageError


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """60,000 colour photographs of ten classes, 32x32 (Krizhevsky 2009).

    The features, their names and the order of the examples are those of TFDS's own builder.

    Args:
      files: {"archive": path of the binary or of the Python version}.
    """

    name = "cifar10"
    VERSION = tfds.core.Version("3.0.2")
    # Feature name to number of classes, in the order of a binary record's label bytes.
    LABELS: ClassVar = {"label": 10}
    # Sizes and checksums: the binary version's from tensorflow_datasets/url_checksums, the Python
    # version's SHA-256 from keras.datasets.
    ORIGINALS = (
        OriginalFile(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        OriginalFile(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            170498071,
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    )
    # The members of the archives, without their folder and the binary version's ".bin".
    FILES: ClassVar = {
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
    }
    NAME_FILES: ClassVar = {"label": "batches.meta.txt"}
    PICKLED_NAME_FILE = "batches.meta"
    PICKLED_KEYS: ClassVar = {"label": ("labels", "label_names")}

    @classmethod
    def obtain_files(cls, source_dir: str | None, download_dir: Path) -> dict[str, Path]:
        """Finds or downloads the archive, see originals.obtain."""
        return {"archive": obtain(cls.ORIGINALS, source_dir, download_dir)}

    def __init__(self, *, files: dict[str, Path], **kwargs):
        self._archive = files["archive"]
        super().__init__(**kwargs)

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
        }
        for key, num_classes in self.LABELS.items():
            features[key] = tfds.features.ClassLabel(num_classes=num_classes)
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # the archive is here
        members = _read_archive(self._archive)
        read = self._read_pickled if self.PICKLED_NAME_FILE in members else self._read_binary
        try:
            names, splits = read(members)
        except (KeyError, ValueError, pickle.UnpicklingError) as error:
            raise UsageError(f"{self._archive} is no {self.name} archive: {error!r}") from error
        for key in self.LABELS:
            self.info.features[key].names = names[key]
        return {split: self._generate_examples(split, *splits[split]) for split in self.FILES}

    def _generate_examples(self, split, images, labels):
        for index, image in enumerate(images):
            example = {key: int(values[index]) for key, values in labels.items()}
            example |= {"id": f"{split}_{index:05d}", "image": Image.fromarray(image)}
            yield index, example

    def _read_binary(self, members: dict[str, bytes]):
        """Records of one byte for each label and 3072 of the image: red, green, blue planes."""
        names = {key: members[file].decode().split() for key, file in self.NAME_FILES.items()}
        splits = {}
        for split, files in self.FILES.items():
            content = b"".join(members[f"{file}.bin"] for file in files)
            records = np.frombuffer(content, np.uint8).reshape(-1, len(self.LABELS) + 3072)
            labels = {key: records[:, i] for i, key in enumerate(self.LABELS)}
            splits[split] = _to_images(records[:, len(self.LABELS) :]), labels
        return names, splits

    def _read_pickled(self, members: dict[str, bytes]):
        """Pickled dicts; these are safe to load, as the archive's checksum was verified."""
        meta = pickle.loads(members[self.PICKLED_NAME_FILE])
        names = {key: meta[names_key] for key, (_, names_key) in self.PICKLED_KEYS.items()}
        splits = {}
        for split, files in self.FILES.items():
            batches = [pickle.loads(members[file], encoding="bytes") for file in files]
            images = _to_images(np.concatenate([batch[b"data"] for batch in batches]))
            labels = {
                key: np.concatenate([batch[labels_key.encode()] for batch in batches])
                for key, (labels_key, _) in self.PICKLED_KEYS.items()
            }
            splits[split] = images, labels
        return names, splits


class Cifar100(Cifar10, skip_registration=True):
    """60,000 colour photographs of 100 classes in 20 superclasses, 32x32 (Krizhevsky 2009).

    The features, their names and the order of the examples are those of TFDS's own builder.
    """

    name = "cifar100"
    VERSION = tfds.core.Version("3.0.2")
    LABELS: ClassVar = {"coarse_label": 20, "label": 100}
    ORIGINALS = (
        OriginalFile(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            168513733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
        OriginalFile(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            169001437,
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
    )
    FILES: ClassVar = {"train": ("train",), "test": ("test",)}
    NAME_FILES: ClassVar = {
        "coarse_label": "coarse_label_names.txt",
        "label": "fine_label_names.txt",
    }
    PICKLED_NAME_FILE = "meta"
    PICKLED_KEYS: ClassVar = {
        "coarse_label": ("coarse_labels", "coarse_label_names"),
        "label": ("fine_labels", "fine_label_names"),
    }


def _read_archive(path: Path) -> dict[str, bytes]:
    """The files of a .tar.gz, by name without folder."""
    try:
        with tarfile.open(path) as archive:
            return {
                Path(member.name).name: archive.extractfile(member).read()
                for member in archive
                if member.isfile()
            }
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UsageError(f"{path} is no .tar.gz archive: {error}") from error


def _to_images(rows: UInt8[np.ndarray, "n 3072"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
