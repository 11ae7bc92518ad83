import io
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import datasets, folder, pipeline
from cnn_jax.data.preprocessing import Preprocessing
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
    assert folder.is_split_by_chance(animals)


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
    assert not folder.is_split_by_chance(tmp_path)
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
    with pytest.raises(UsageError, match=f"only one image of the class fish, {animals}/fish/"):
        datasets.load(f"folder:{animals}", "train")


def test_validation_class_unknown_to_train(tmp_path):
    for name in ("train/cat", "train/dog", "val/cat", "val/fish"):
        save_images(tmp_path / name, 2)
    with pytest.raises(UsageError, match="classes that train lacks: fish"):
        datasets.load(f"folder:{tmp_path}", "train")


def test_a_validation_folder_without_some_classes_keeps_the_numbers_of_train(tmp_path):
    for name in ("train/ant", "train/bee", "train/cat", "val/cat"):
        save_images(tmp_path / name, 2)
    dataset = datasets.load(f"folder:{tmp_path}", "validation")
    assert dataset.class_names == ("ant", "bee", "cat")
    assert datasets.labels(dataset).tolist() == [2, 2]


def test_unknown_split(animals):
    with pytest.raises(UsageError, match=r"unknown split of .* 'validation'; known: test, train"):
        datasets.load(f"folder:{animals}", "validation")
    with pytest.raises(UsageError, match=r"cannot read the split 'train\[half\]'"):
        datasets.load(f"folder:{animals}", "train[half]")
    with pytest.raises(UsageError, match="reaches beyond the"):
        datasets.load(f"folder:{animals}", "train[:1000]")


def test_labels_are_known_without_reading_the_images(animals):
    dataset = datasets.load(f"folder:{animals}", "train")
    expected = [example["label"] for example in dataset.source]
    for file, _ in dataset.source.files:
        file.unlink()
    np.testing.assert_array_equal(datasets.labels(dataset), expected)


# What counts.


def save_tree(root, *folders, count=3):
    """Images in each of these folders, every one of another content."""
    for number, name in enumerate(folders):
        save_images(root / name, count, value=number)


def all_files(path, *splits):
    splits = splits or folder.split_names(path)
    return [name for split in splits for name in filenames(datasets.load(f"folder:{path}", split))]


@pytest.mark.parametrize(
    "left_behind",
    [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".AppleDouble", "$RECYCLE.BIN", "lost+found"],
)
def test_what_systems_leave_behind_is_neither_a_class_nor_in_one(tmp_path, left_behind):
    save_tree(tmp_path, "cat", "dog", left_behind, f"cat/{left_behind}", f"dog/deep/{left_behind}")
    dataset = datasets.load(f"folder:{tmp_path}", "train")
    assert dataset.class_names == ("cat", "dog")
    assert len(all_files(tmp_path)) == folder.verify(tmp_path) == 6


def test_thumbs_and_desktop_files_are_no_images(tmp_path):
    save_tree(tmp_path, "cat", "dog")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._00.png"):
        (tmp_path / "cat" / name).write_bytes(b"not an image")
        (tmp_path / name).write_bytes(b"not an image")
    assert folder.verify(tmp_path) == 6


def test_hidden_folders_beside_the_splits_are_no_splits(tmp_path):
    save_tree(tmp_path, "train/cat", "train/dog", "train/.git", ".val/cat", "__MACOSX/train/cat")
    assert folder.split_names(tmp_path) == ("train", "test")
    assert len(all_files(tmp_path)) == 6


@pytest.mark.parametrize("target", [".", "..", "../..", "deep"])
def test_a_link_within_a_class_multiplies_nothing(tmp_path, target):
    save_tree(tmp_path / "own", "cat", "cat/deep", "dog")
    (tmp_path / "own" / "cat" / "again").symlink_to(target)
    assert len(set(all_files(tmp_path / "own"))) == len(all_files(tmp_path / "own")) == 9
    assert not any("again" in file for file in all_files(tmp_path / "own"))


def test_a_link_to_the_folder_itself_is_no_class(tmp_path):
    save_tree(tmp_path, "cat", "dog")
    (tmp_path / "all").symlink_to(".")
    (tmp_path / "up").symlink_to("..")
    assert datasets.load(f"folder:{tmp_path}", "train").class_names == ("cat", "dog")


def test_classes_and_images_may_be_links_to_elsewhere(tmp_path):
    save_tree(tmp_path / "store", "a", "b", "c")
    own = tmp_path / "own"
    (own / "dog").mkdir(parents=True)
    (own / "cat").symlink_to(tmp_path / "store" / "a")
    (own / "dog" / "more").symlink_to(tmp_path / "store" / "b")
    for name in ("one.png", "the_same.png"):
        (own / "dog" / name).symlink_to(tmp_path / "store" / "c" / "00.png")
    assert sorted(all_files(own)) == [
        *(f"{own}/cat/0{i}.png" for i in range(3)),
        *(f"{own}/dog/more/0{i}.png" for i in range(3)),
        f"{own}/dog/one.png",
    ]


def test_a_link_to_nothing_is_named(animals):
    (animals / "cat" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(UsageError, match=r"cannot read image file: .*gone\.png \(No such file"):
        folder.verify(animals)


# Splits.


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Train", "Test", "test"),
        ("TRAIN", "TEST", "test"),
        ("train", "Val", "validation"),
        ("Train", "val", "validation"),
        ("training", "Testing", "test"),
        ("Training", "VALIDATION", "validation"),
        ("train", "Valid", "validation"),
    ],
)
def test_splits_are_known_by_the_names_people_give_them(tmp_path, train, other, split):
    save_tree(tmp_path, f"{train}/cat", f"{train}/dog", f"{other}/cat", f"{other}/dog")
    name = f"folder:{tmp_path}"
    assert folder.split_names(tmp_path) == ("train", split)
    assert datasets.evaluation_split(name) == split
    assert datasets.load(name, "train").class_names == ("cat", "dog")
    assert all(f"/{other}/" in file for file in all_files(tmp_path, split))
    assert len(all_files(tmp_path, other)) == len(all_files(tmp_path, train)) == 6
    assert len(all_files(tmp_path, f"{other.upper()}[:50%]")) == 3


def test_three_splits_of_mixed_names(tmp_path):
    save_tree(tmp_path, *(f"{s}/{c}" for s in ("Test", "VAL", "train") for c in ("cat", "dog")))
    assert folder.split_names(tmp_path) == ("train", "validation", "test")


def test_two_folders_of_one_split_are_refused(tmp_path):
    save_tree(tmp_path, "train/cat", "train/dog", "val/cat", "Validation/cat")
    with pytest.raises(UsageError, match=r"Validation and .*val are both the split validation"):
        datasets.load(f"folder:{tmp_path}", "train")


def test_a_split_alone_can_be_evaluated(tmp_path):
    save_tree(tmp_path, "val/cat", "val/dog")
    assert folder.split_names(tmp_path) == ("validation",)
    dataset = datasets.load(f"folder:{tmp_path}", "validation")
    assert (dataset.class_names, len(dataset.source)) == (("cat", "dog"), 6)
    with pytest.raises(UsageError, match=r"unknown split of .* 'train'; known: validation"):
        datasets.load(f"folder:{tmp_path}", "train")


def test_a_train_folder_that_may_be_a_class_is_refused(tmp_path):
    save_tree(tmp_path, "train/2019", "train/2020", "bus")
    with pytest.raises(UsageError, match=r"train/ with sub-folders beside bus/: .*\?"):
        datasets.load(f"folder:{tmp_path}", "train")


def test_a_test_folder_without_labels_is_told_and_left_out(tmp_path, caplog):
    save_tree(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "test")
    assert datasets.evaluation_split(f"folder:{tmp_path}") == "validation"
    assert f"{tmp_path / 'test'} has no sub-folder for each class" in caplog.text


def test_folders_within_those_of_the_classes_are_told_to_be_no_classes(tmp_path, caplog):
    save_tree(tmp_path, "train/fruit/apple", "train/fruit/pear", "train/milk/oat", "val/milk/oat")
    dataset = datasets.load(f"folder:{tmp_path}", "train")
    assert dataset.class_names == ("fruit", "milk")
    assert len(dataset.source) == 9
    assert caplog.text.count("the classes are the 2 folders in") == 1
    assert f"{tmp_path / 'train'} (fruit, milk), not the 3 within them" in caplog.text


# A CSV file.


def save_list(root, lines, name="images.csv", encoding="utf-8"):
    (root / name).write_text("\n".join(lines), encoding=encoding)
    return root / name


def test_a_csv_file_names_files_classes_and_splits(tmp_path):
    """Of 3 classes, whose numbers are those of the training images, validation has the last."""
    save_tree(tmp_path, "a/new pictures", "b", "ü")
    lines = [
        "split, class, file, comment",
        *(f"train, Äpfel, a/new pictures/0{i}.png, {i}" for i in range(3)),
        "Training, pear, b/00.png",
        f"train, 'zoo', {tmp_path}/ü/00.png",
        "val, 'zoo', ü/01.png",
        '"test", "pear", "b/01.png"',
        "",
    ]
    for encoding in ("utf-8", "utf-8-sig"):
        name = f"folder:{save_list(tmp_path, lines, encoding=encoding)}"
        loaded = {split: datasets.load(name, split) for split in ("train", "validation", "test")}
        assert {each.class_names for each in loaded.values()} == {("'zoo'", "pear", "Äpfel")}
        labels = {split: datasets.labels(each).tolist() for split, each in loaded.items()}
        assert sorted(labels.pop("train")) == [0, 1, 2, 2, 2]
        assert labels == {"validation": [0], "test": [1]}
        assert filenames(loaded["validation"]) == [f"{tmp_path}/ü/01.png"]
        assert datasets.evaluation_split(name) == "test"


def test_images_of_a_csv_file_without_splits_are_split_as_those_of_a_folder(animals):
    files = sorted(animals.glob("*/*.png"))
    lines = ["file,class", *(f"{file.relative_to(animals)},{file.parent.name}" for file in files)]
    listed = save_list(animals, lines)
    for split in folder.split_names(listed):
        expected = datasets.load(f"folder:{animals}", split)
        dataset = datasets.load(f"folder:{listed}", split)
        assert filenames(dataset) == filenames(expected)
        assert dataset.class_names == expected.class_names
    assert folder.verify(listed) == 25
    assert folder.is_split_by_chance(listed)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"must name the columns file and class, .*; it is ''"),
        (["a.png, cat", "b.png, dog"], "must name the columns file and class, .*'a.png,cat'"),
        (["file;class", "a.png;cat"], "must name the columns file and class"),
        (["file,class", "a.png,cat", "b.png"], r"line 3 of .*images\.csv has no class; write"),
        (["file,class", ",cat"], "line 2 of .* has no file"),
        (["file,class,split", "a.png,cat,odd"], "line 2 of .* has the split 'odd'"),
        (["file,class,split", "a.png,cat"], "line 2 of .* has the split ''"),
        (["file,class", "a.png,cat"], r"has one class \(cat\); name images of two or more"),
        (["file,class"], "has no class; name images"),
        (
            ["file,class,split", "a.png,cat,train", "b.png,dog,train", "c.png,fish,val"],
            "validation of .* has classes that train lacks: fish",
        ),
        (["file,class", "a.png,cat", "b.png,dog", "c.png,dog"], "only one image of the class cat"),
    ],
)
def test_a_csv_file_that_cannot_be_meant_is_an_error(tmp_path, lines, message):
    with pytest.raises(UsageError, match=message):
        datasets.load(f"folder:{save_list(tmp_path, lines)}", "train")


def test_a_csv_file_in_another_encoding_is_an_error(tmp_path):
    listed = save_list(tmp_path, ["file,class", "a.png,Äpfel"], encoding="latin-1")
    with pytest.raises(UsageError, match="must be a CSV file in UTF-8"):
        datasets.load(f"folder:{listed}", "train")


def test_a_file_that_a_csv_file_names_and_that_is_not_there_is_named(tmp_path):
    lines = ["file,class,split", "a.png,cat,train", "b.png,dog,train", "b.png,dog,test"]
    dataset = datasets.load(f"folder:{save_list(tmp_path, lines)}", "train")
    with pytest.raises(UsageError, match=r"cannot read image file: .*/[ab]\.png \(No such file"):
        list(dataset.source)


# Copies.


def test_files_of_one_content_in_two_splits_are_told_once(tmp_path, caplog):
    save_tree(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    original, copy = tmp_path / "train" / "cat" / "01.png", tmp_path / "val" / "dog" / "again.png"
    copy.write_bytes(original.read_bytes())
    for split in ("train", "validation"):
        datasets.load(f"folder:{tmp_path}", split)
    lines = [line.getMessage() for line in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"1 image has the content of an image of another split, such as {copy} and {original}"
    )
    said = []
    assert folder.verify(tmp_path, say=said.append) == 13
    assert said == lines


def test_copies_within_one_split_and_files_of_one_size_are_none(tmp_path, caplog):
    save_tree(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    image = tmp_path / "train" / "cat" / "00.png"
    (tmp_path / "train" / "cat" / "again.png").write_bytes(image.read_bytes())
    said = []
    folder.verify(tmp_path, say=said.append)
    datasets.load(f"folder:{tmp_path}", "train")
    assert said == []
    assert caplog.text == ""


def test_a_folder_that_takes_long_to_compare_is_compared_by_its_check(
    tmp_path, caplog, monkeypatch
):
    save_tree(tmp_path, "train/cat", "train/dog")
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    monkeypatch.setattr(folder, "COMPARED_BYTES", 100)
    datasets.load(f"folder:{tmp_path}", "train")
    assert caplog.text == ""
    said = []
    folder.verify(tmp_path, say=said.append)
    assert said[0].startswith("6 images have the content of an image of another split")


# The check.


def test_the_check_reads_what_training_reads(animals):
    numbers = np.array([[0.0, 300.0]], np.float32)
    Image.fromarray(numbers).save(animals / "cat" / "depth.tiff")
    with pytest.raises(UsageError, match=r"depth\.tiff \(floating-point values of 0 to 300"):
        folder.verify(animals)
    dataset = datasets.load(f"folder:{animals}", "train+test")
    with pytest.raises(UsageError, match=r"depth\.tiff: floating-point values of 0 to 300"):
        list(pipeline.evaluation_batches(dataset, batch_size=26, preprocessing=Preprocessing(4)))


@pytest.mark.parametrize(
    ("mode", "channels", "line"),
    [
        ("L", 3, "all images are grey; --channels=1 reads one channel"),
        ("L", 1, None),
        ("RGB", 3, None),
        ("RGB", 1, "6 of 6 images have colours, which become grey"),
        ("RGBA", 3, "6 of 6 images have transparency, which is put on white"),
        ("RGBA", 4, None),
    ],
)
def test_the_check_tells_what_channels_there_are(tmp_path, mode, channels, line):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new(mode, (4 + number, 4 + i)).save(tmp_path / name / f"{i}.png")
    said = []
    folder.verify(tmp_path, channels, said.append)
    assert said == ([line] if line else [])
