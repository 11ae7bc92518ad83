"""scikit-learn's handwritten digits as a TFDS data set; needs no network."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets as sklearn_datasets

TEST_FRACTION = 0.2


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """1797 scans of handwritten digits, 8x8 grey levels, split 80/20 within each class.

    The scans are the test part of UCI's optdigits (Alpaydin and Kaynak, 1998). The split is random
    within each class, so that a writer may appear on both sides of it.
    """

    name = "digits"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "index": np.int64,  # the row of sklearn.datasets.load_digits()
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        digits = sklearn_datasets.load_digits()
        in_test = stratified_mask(digits.target, TEST_FRACTION)
        return {
            "train": self._generate_examples(digits, np.flatnonzero(~in_test)),
            "test": self._generate_examples(digits, np.flatnonzero(in_test)),
        }

    def _generate_examples(self, digits, indices):
        for index in map(int, indices):
            # 0..16 to 0..255, lossless: 255 / 16 > 1, so no two levels meet.
            levels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
            image = Image.fromarray(levels)
            yield index, {"image": image, "label": int(digits.target[index]), "index": index}


def stratified_mask(labels: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """A random choice of examples: bool [n], true for `fraction` of each class.

    RandomState's stream is frozen by NumPy (NEP 19), so the split never changes.
    """
    random = np.random.RandomState(seed)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        mask[members[: round(fraction * len(members))]] = True
    return mask
