"""MNIST and Fashion-MNIST as TFDS data sets, from the original files, without TensorFlow."""

import gzip
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from cnn_jax.data.builders.originals import OriginalFile, obtain
from cnn_jax.errors import UsageError


class MNIST(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """70,000 handwritten digits, 28x28 grey levels (LeCun et al. 1998).

    The features, their names and the order of the examples are those of TFDS's own builder.

    Args:
      files: the four files by their keys in ORIGINALS.
    """

    name = "mnist"
    VERSION = tfds.core.Version("3.0.1")
    CLASS_NAMES = tuple("0123456789")
    HOMEPAGE = "http://yann.lecun.com/exdb/mnist/"
    # Sizes and checksums: tensorflow_datasets/url_checksums/mnist.txt
    ORIGINALS: ClassVar = {
        "train_images": OriginalFile(
            "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
            9912422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "train_labels": OriginalFile(
            "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
            28881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        "test_images": OriginalFile(
            "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz",
            1648877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "test_labels": OriginalFile(
            "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
            4542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    }

    @classmethod
    def obtain_files(cls, source_dir: str | None, download_dir: Path) -> dict[str, Path]:
        """Finds or downloads the original files, see originals.obtain."""
        return {
            key: obtain([file], source_dir, download_dir) for key, file in cls.ORIGINALS.items()
        }

    def __init__(self, *, files: dict[str, Path], **kwargs):
        self._files = files
        super().__init__(**kwargs)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=self.CLASS_NAMES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # the files are here
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        images = read_idx(self._files[f"{split}_images"])
        labels = read_idx(self._files[f"{split}_labels"])
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": Image.fromarray(image), "label": int(label)}


class FashionMNIST(MNIST, skip_registration=True):
    """70,000 pictures of clothes, 28x28 grey levels (Xiao et al. 2017, arXiv:1708.07747).

    The features, their names and the order of the examples are those of TFDS's own builder.
    """

    name = "fashion_mnist"
    VERSION = tfds.core.Version("3.0.1")
    HOMEPAGE = "https://github.com/zalandoresearch/fashion-mnist"
    CLASS_NAMES = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    # Sizes and checksums: tensorflow_datasets/url_checksums/fashion_mnist.txt
    _URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    ORIGINALS: ClassVar = {
        "train_images": OriginalFile(
            f"{_URL}/train-images-idx3-ubyte.gz",
            26421880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        "train_labels": OriginalFile(
            f"{_URL}/train-labels-idx1-ubyte.gz",
            29515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        "test_images": OriginalFile(
            f"{_URL}/t10k-images-idx3-ubyte.gz",
            4422102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        "test_labels": OriginalFile(
            f"{_URL}/t10k-labels-idx1-ubyte.gz",
            5148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    }


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Reads a gzipped IDX file of bytes.

    The format: two zero bytes, the type (8: unsigned byte), the rank, each dimension as a
    big-endian int32, the data; see http://yann.lecun.com/exdb/mnist/.
    """
    try:
        content = gzip.decompress(Path(path).read_bytes())
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}i", content, 4)
        data = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise UsageError(f"{path} is no gzipped IDX file: {error}") from error
    if zeros != 0 or kind != 8:
        raise UsageError(f"{path} is no IDX file of unsigned bytes")
    return data
