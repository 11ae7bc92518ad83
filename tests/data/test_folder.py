import io
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import datasets, folder
from cnn_jax.errors import UsageError


def save_images(path, count, file_format="png", value=0):
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image = Image.new("RGB", (5, 4), (value, i, 0))
        image.save(path / f"{i:02d}.{file_format}")


@pytest.fixture
def animals(tmp_path):
    """10 cats, 10 dogs and 5 birds, no splits."""
    for value, (name, count) in enumerate([("cat", 10), ("dog", 10), ("bird", 5)]):
        save_images(tmp_path / name, count, value=value)
    return tmp_path


def filenames(dataset):
    return [dataset.source[i]["filename"] for i in range(len(dataset.source))]


def test_classes_are_the_sorted_sub_folders(animals):
    dataset = datasets.load(f"folder:{animals}", "train")
    assert dataset.class_names == ("bird", "cat", "dog")
    assert dataset.num_classes == 3
    assert dataset.image_shape == (None, None, 3)
    assert dataset.mean == (0.485, 0.456, 0.406)
    for example in dataset.source:
        assert example["filename"].split("/")[-2] == dataset.class_names[example["label"]]
        assert Image.open(io.BytesIO(example["image"])).size == (5, 4)


def test_split_is_disjoint_complete_stratified_and_fixed(animals):
    train = filenames(datasets.load(f"folder:{animals}", "train"))
    test = filenames(datasets.load(f"folder:{animals}", "test"))
    assert len(set(train) | set(test)) == len(train) + len(test) == 25
    for name, count in [("cat", 2), ("dog", 2), ("bird", 1)]:
        assert sum(f"/{name}/" in file for file in test) == count
    assert train == filenames(datasets.load(f"folder:{animals}", "train"))
    assert folder.split_names(animals) == ("train", "test")


def test_slices_share_out_the_classes(animals):
    train = filenames(datasets.load(f"folder:{animals}", "train"))
    first = filenames(datasets.load(f"folder:{animals}", "train[:50%]"))
    second = filenames(datasets.load(f"folder:{animals}", "train[50%:]"))
    assert first + second == train
    assert {file.split("/")[-2] for file in first} == {"bird", "cat", "dog"}


@pytest.mark.parametrize("evaluation", ["val", "valid", "validation", "test"])
def test_splits_in_sub_folders(tmp_path, evaluation):
    for split, count in [("train", 3), (evaluation, 2)]:
        save_images(tmp_path / split / "cat", count)
        save_images(tmp_path / split / "dog", count)
    name = f"folder:{tmp_path}"
    assert len(datasets.load(name, "train").source) == 6
    split = datasets.evaluation_split(name)
    assert split == ("test" if evaluation == "test" else "validation")
    assert len(datasets.load(name, split).source) == 4


def test_only_train_is_split_by_chance(tmp_path):
    save_images(tmp_path / "train" / "cat", 5)
    save_images(tmp_path / "train" / "dog", 5)
    assert len(datasets.load(f"folder:{tmp_path}", "train").source) == 8
    assert len(datasets.load(f"folder:{tmp_path}", "test").source) == 2


def test_a_class_may_be_called_train(tmp_path):
    save_images(tmp_path / "train", 5)
    save_images(tmp_path / "bus", 5)
    assert datasets.load(f"folder:{tmp_path}", "train").class_names == ("bus", "train")


def test_any_format_counts_and_other_files_do_not(tmp_path):
    for file_format in ("png", "jpg", "JPEG", "bmp", "gif", "webp", "tiff"):
        save_images(tmp_path / "cat" / file_format, 2, file_format)
    save_images(tmp_path / "dog", 2)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "dog" / "._00.png").write_text("a file of macOS")
    (tmp_path / ".cache").mkdir()
    splits = [datasets.load(f"folder:{tmp_path}", split) for split in ("train", "test")]
    assert sum(len(dataset.source) for dataset in splits) == 14 + 2
    assert folder.verify(tmp_path) == 16


def test_source_can_be_pickled(animals):
    source = datasets.load(f"folder:{animals}", "train").source
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


def test_a_file_that_is_no_image_is_named_when_read(animals):
    broken = animals / "cat" / "00.png"
    broken.write_bytes(b"no image")
    dataset = datasets.load(f"folder:{animals}", "train+test")
    with pytest.raises(UsageError, match=f"cannot read image file: {broken}"):
        list(dataset.source)


def test_verify_names_every_broken_file(animals):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    truncated = animals / "cat" / "cut.jpg"
    Image.fromarray(noise).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:2000])
    wrong = animals / "dog" / "wrong.png"
    wrong.write_bytes(b"no image")
    message = re.escape(f"cannot read 2 image files: {truncated}, {wrong}")
    with pytest.raises(UsageError, match=message):
        folder.verify(animals)


def test_missing_folder(tmp_path):
    with pytest.raises(UsageError, match=r"no such folder: .*; give folder:PATH"):
        datasets.load(f"folder:{tmp_path / 'none'}", "train")


def test_folder_without_classes(tmp_path):
    with pytest.raises(UsageError, match="has no class"):
        datasets.load(f"folder:{tmp_path}", "train")


def test_folder_with_one_class(tmp_path):
    save_images(tmp_path / "cat", 3)
    with pytest.raises(UsageError, match=r"has one class \(cat\)"):
        datasets.load(f"folder:{tmp_path}", "train")


def test_empty_class(animals):
    (animals / "fish").mkdir()
    with pytest.raises(UsageError, match=f"no images in {animals / 'fish'}"):
        datasets.load(f"folder:{animals}", "train")


def test_class_with_one_image(animals):
    save_images(animals / "fish", 1)
    with pytest.raises(UsageError, match=f"only one image in {animals / 'fish'}"):
        datasets.load(f"folder:{animals}", "train")


def test_validation_class_unknown_to_train(tmp_path):
    for name in ("train/cat", "train/dog", "val/cat", "val/fish"):
        save_images(tmp_path / name, 2)
    with pytest.raises(UsageError, match="classes that train/ lacks: fish"):
        datasets.load(f"folder:{tmp_path}", "train")


def test_unknown_split(animals):
    with pytest.raises(UsageError, match=r"unknown split of .* 'validation'; known: test, train"):
        datasets.load(f"folder:{animals}", "validation")
    with pytest.raises(UsageError, match=r"cannot read the split 'train\[half\]'"):
        datasets.load(f"folder:{animals}", "train[half]")


def test_labels_are_known_without_reading_the_images(animals):
    dataset = datasets.load(f"folder:{animals}", "train")
    expected = [example["label"] for example in dataset.source]
    for file, _ in dataset.source.files:
        file.unlink()
    np.testing.assert_array_equal(datasets.labels(dataset), expected)
