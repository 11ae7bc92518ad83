"""Data sets of one's own: arrays, and functions that commands find by their names."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from cnn_jax import plugins
from cnn_jax.data import datasets, decoding, masks
from cnn_jax.data.arrays import from_arrays
from cnn_jax.errors import UsageError
from cnn_jax.tasks.segmentation import IGNORED

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 5, 6, 4), np.uint8)
LABELS = np.arange(10) % 3


@pytest.fixture
def dots(tmp_path, monkeypatch):
    """The address of a data set whose splits have 10 and 4 examples."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outside_dots.py").write_text(
        "import numpy as np\n"
        "from cnn_jax.data.arrays import from_arrays\n"
        "def dots(split, data_dir=None):\n"
        "    count = {'train': 10, 'test': 4}[split]\n"
        "    return from_arrays(np.zeros((count, 8, 8, 1), np.uint8), np.arange(count) % 2, 'ab')\n"
        "def wrong(split, data_dir=None):\n"
        "    return [1, 2]\n"
        "number = 3\n"
    )
    yield "outside_dots:dots"
    sys.modules.pop("outside_dots", None)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_are_read_as_they_are(channels):
    images = IMAGES[..., :channels]
    dataset = from_arrays(images, LABELS, ("a", "b", "c"))
    assert (dataset.image_shape, len(dataset.mean)) == ((5, 6, channels), channels)
    assert datasets.class_counts(dataset).tolist() == [4, 3, 3]
    for i in range(10):
        image = decoding.decode(dataset.source[i]["image"], channels)
        np.testing.assert_array_equal(np.asarray(image).reshape(5, 6, channels), images[i])
        assert dataset.source[i]["label"] == LABELS[i]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES / 255, LABELS, r"^images are float64 \(10, 5, 6, 4\); give uint8"),
        (IMAGES[0], LABELS, "^images are uint8"),
        (IMAGES, LABELS[1:], r"^labels are int64 \(9,\); give integers \[10\]"),
        (IMAGES, LABELS + 1, "^labels go from 1 to 3; there are 3 classes"),
        (IMAGES[..., :2], LABELS, "^images of 2 channels are not supported"),
    ],
)
def test_other_arrays_are_refused(images, labels, message):
    with pytest.raises(UsageError, match=message):
        from_arrays(images, labels, ("a", "b", "c"))


def test_a_function_is_a_data_set_by_its_address(dots):
    assert datasets.training_split(dots) == "train"
    assert datasets.evaluation_split(dots) == "test"
    dataset = datasets.load(dots, "test")
    assert (dataset.name, dataset.split, len(dataset.source)) == (dots, "test", 4)


def test_its_splits_are_sliced_as_those_of_every_data_set(dots):
    first, last = (datasets.load(dots, split) for split in ("train[:70%]", "train[70%:]"))
    assert (len(first.source), len(last.source)) == (7, 3)
    labels = [*datasets.labels(first), *datasets.labels(last)]
    np.testing.assert_array_equal(labels, datasets.labels(datasets.load(dots, "train")))
    with pytest.raises(UsageError, match=r"^cannot read the split"):
        datasets.load(dots, "train[oops]")
    beyond = r"^'train\[:11\]' reaches beyond the 10 examples of its split"
    with pytest.raises(UsageError, match=beyond):
        datasets.load(dots, "train[:11]")


def test_a_function_that_returns_no_data_set_is_refused(dots):
    with pytest.raises(UsageError, match=r"^the data set outside_dots:wrong gave a list; its func"):
        datasets.load("outside_dots:wrong", "train")
    with pytest.raises(UsageError, match=r"^the data set outside_dots:number is no function"):
        datasets.load("outside_dots:number", "train")


def test_a_data_set_is_registered_by_name(monkeypatch):
    monkeypatch.setattr(datasets, "OWN", {})
    monkeypatch.setattr(plugins, "REGISTERED", {})

    def load(split, data_dir):
        assert (split, data_dir) == ("validation", "/data")
        return from_arrays(IMAGES, LABELS, ("a", "b", "c"))

    datasets.register_dataset("mine", load, ("train", "validation"))
    assert datasets.evaluation_split("mine") == "validation"
    assert len(datasets.load("mine", "validation[:5]", "/data").source) == 5
    for name in ("mine", "digits", "cifar10"):
        with pytest.raises(UsageError, match=f"^there is a data set '{name}' already"):
            datasets.register_dataset(name, load)


def test_its_masks_hold_the_numbers_of_the_classes(monkeypatch):
    monkeypatch.setattr(datasets, "OWN", {})
    monkeypatch.setattr(plugins, "REGISTERED", {})
    mask = np.array([[0, 1], [2, IGNORED]], np.uint8)
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "png")
    dataset = from_arrays(IMAGES[:1, :2, :2], LABELS[:1], ("ground", "cat", "dog"))
    example = dataset.source[0] | {"mask": file.getvalue()}
    datasets.register_dataset("masked", lambda *_: dataset._replace(source=[example]))
    datasets.register_dataset("unmasked", lambda *_: dataset)
    loaded = masks.load("masked", "train")
    assert loaded.class_names == ("ground", "cat", "dog")
    np.testing.assert_array_equal(loaded.source[0]["mask"], mask)
    with pytest.raises(UsageError, match=r'^the examples of unmasked have no "mask"'):
        masks.load("unmasked", "train")
