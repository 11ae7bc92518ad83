import concurrent.futures
import itertools
import json
import multiprocessing
import pickle
import shutil
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cnn_jax.data import datasets, preparation
from cnn_jax.data.arrays import from_arrays
from cnn_jax.errors import UsageError
from tests.data.test_tfrecord import write_tfrecord


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Holds digits."""
    data_dir = tmp_path_factory.mktemp("data")
    datasets.prepare("digits", data_dir)
    return data_dir


def as_tfrecord(data_dir, new_dir, name="digits", version="1.0.0", num_shards=3):
    """Copies a data set as TFDS would have written it in its default format."""
    source = tfds.builder_from_directory(data_dir / "digits" / "1.0.0")
    folder = new_dir / name / version
    folder.mkdir(parents=True)
    shutil.copy(source.data_path / "features.json", folder)
    info = json.loads((source.data_path / "dataset_info.json").read_text())
    info |= {"fileFormat": "tfrecord", "name": name.partition("/")[0], "version": version}
    for split in info["splits"]:
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        method = tfds.decode.DeserializeMethod.RAW_BYTES
        records = list(source.as_data_source(split["name"], deserialize_method=method))
        # Shards of unequal lengths.
        bounds = [0, 100, 230, len(records)] if num_shards == 3 else [0, len(records)]
        split["shardLengths"] = []
        for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
            split["shardLengths"].append(str(stop - start))
            file = f"{info['name']}-{split['name']}.tfrecord-{i:05d}-of-{num_shards:05d}"
            write_tfrecord(folder / file, records[start:stop])
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def test_digits_prepare_themselves_on_first_use(tmp_path):
    dataset = datasets.load("digits", "test", tmp_path)
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.num_classes == 10
    example = dataset.source[0]
    assert example["image"].startswith(b"\x89PNG")
    assert type(example["label"]) is int
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_data_dir_is_by_default_that_of_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(datasets.load("digits", "test").source) == 359
    assert (tmp_path / "digits" / "1.0.0").is_dir()


def test_another_process_may_finish_first(tmp_path, monkeypatch):
    write = preparation._write

    def write_while_another_process_prepares(builder):
        write(builder)
        monkeypatch.setattr(preparation, "_write", write)
        datasets.prepare("digits", tmp_path)

    monkeypatch.setattr(preparation, "_write", write_while_another_process_prepares)
    assert datasets.prepare("digits", tmp_path) == tmp_path / "digits" / "1.0.0"
    assert len(datasets.load("digits", "train", tmp_path).source) == 1438
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def _prepare(data_dir):
    return datasets.prepare("digits", data_dir)


@pytest.mark.slow  # each process imports JAX
def test_two_processes_may_prepare_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        folders = list(pool.map(_prepare, [tmp_path] * 2))
    assert folders == [tmp_path / "digits" / "1.0.0"] * 2
    assert len(datasets.load("digits", "train", tmp_path).source) == 1438
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(builder):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.prepare("digits", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_shards", [1, 3])
def test_tfrecord_reads_as_array_record(data_dir, tmp_path, num_shards):
    as_tfrecord(data_dir, tmp_path, num_shards=num_shards)
    for split in ("train", "test", "train[5%:80%]", "test[-300:]+train[:7]"):
        one = datasets.load("digits", split, data_dir).source
        other = datasets.load("digits", split, tmp_path).source
        assert len(one) > 0
        assert list(one) == list(other)


def test_tfrecord_without_a_named_format(data_dir, tmp_path):
    """TFDS before 4.3 wrote no fileFormat."""
    folder = as_tfrecord(data_dir, tmp_path, num_shards=1)
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["fileFormat"]
    for split in info["splits"]:
        del split["filepathTemplate"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert len(datasets.load("digits", "test", tmp_path).source) == 359


def test_a_prepared_copy_of_any_version_is_read(data_dir, tmp_path):
    as_tfrecord(data_dir, tmp_path, "mnist", "3.0.1")
    as_tfrecord(data_dir, tmp_path, "mnist", "10.0.0")
    assert preparation.find_prepared("mnist", tmp_path).name == "10.0.0"
    assert preparation.find_prepared("mnist:3.0.1", tmp_path).name == "3.0.1"
    dataset = datasets.load("mnist:3.0.1", "test", tmp_path)
    assert len(dataset.source) == 359
    assert dataset.mean == datasets.STATISTICS["mnist"][0]


def test_configurations(data_dir, tmp_path):
    as_tfrecord(data_dir, tmp_path, "custom/small")
    assert len(datasets.load("custom", "test", tmp_path).source) == 359
    as_tfrecord(data_dir, tmp_path, "custom/large")
    assert len(datasets.load("custom/small", "test", tmp_path).source) == 359
    with pytest.raises(UsageError, match=r"name one: custom/large, custom/small"):
        datasets.load("custom", "test", tmp_path)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_sources_are_picklable_and_thread_safe(data_dir, tmp_path, file_format):
    if file_format == "tfrecord":
        as_tfrecord(data_dir, tmp_path)
        data_dir = tmp_path
    source = datasets.load("digits", "train", data_dir).source
    expected = [source[i] for i in range(len(source))]
    copy = pickle.loads(pickle.dumps(source))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy.__getitem__, range(len(copy)))) == expected
    with pytest.raises(IndexError):
        source[len(source)]


def test_splits_to_train_on_and_to_report(data_dir):
    assert datasets.training_split("digits", data_dir) == "train"
    assert datasets.evaluation_split("digits", data_dir) == "test"


def keep_splits(folder, names):
    """Renames the splits of a data set, in their order; what is left without a name goes."""
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"] = info["splits"][: len(names)]
    for split, name in zip(info["splits"], names, strict=True):
        for file in folder.glob(f"*-{split['name']}.*"):
            file.rename(folder / file.name.replace(f"-{split['name']}.", f"-{name}."))
        split["name"] = name
    (folder / "dataset_info.json").write_text(json.dumps(info))


def test_validation_is_reported_where_there_is_no_test(data_dir, tmp_path):
    keep_splits(as_tfrecord(data_dir, tmp_path), ["validation", "train"])
    assert datasets.evaluation_split("digits", tmp_path) == "validation"


class Scenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """As COCO, whose images of the test split come without their objects."""

    name = "scenes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=("cat", "dog"))
        objects = {"bbox": tfds.features.BBoxFeature(), "label": label}
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "objects": tfds.features.Sequence(objects),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ("train", "validation", "test")}

    def _generate_examples(self, split):
        thing = {"bbox": tfds.features.BBox(0.0, 0.0, 0.5, 1.0), "label": "dog"}
        for i in range(2):  # the first image has nothing on it anyway
            objects = [thing] * i if split != "test" else []
            yield i, {"image": Image.new("RGB", (6, 4)), "objects": objects}


def test_a_test_split_without_objects_is_not_reported(tmp_path):
    Scenes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    assert datasets.evaluation_split("scenes", tmp_path) == "validation"
    assert datasets.load("scenes", "validation", tmp_path).class_names == ("cat", "dog")


def test_a_tenth_is_held_out_where_there_is_only_train(data_dir, tmp_path):
    keep_splits(as_tfrecord(data_dir, tmp_path), ["train"])
    train, test = (
        datasets.load("digits", split("digits", tmp_path), tmp_path).source
        for split in (datasets.training_split, datasets.evaluation_split)
    )
    indices = [{example["index"] for example in source} for source in (train, test)]
    assert not indices[0] & indices[1]
    assert len(test) == round(0.1 * (len(train) + len(test)))


def test_unprepared_data_set_says_within_seconds_how_to_prepare_it(tmp_path):
    start = time.monotonic()
    with pytest.raises(UsageError) as error:
        datasets.load("cifar10", "train", tmp_path)
    assert time.monotonic() - start < 10
    assert str(error.value) == (
        f"data set 'cifar10' is not prepared under {tmp_path}; "
        f"prepare it with: ./launch.sh prepare_data --dataset=cifar10 --data_dir={tmp_path}"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagnet2012", "unknown data set 'imagnet2012'; did you mean 'imagenet2012'"),
        ("Cifar10", "did you mean 'cifar10'"),
        ("digit", "did you mean 'digits'"),
        ("", "unknown data set ''"),
        ("../digits", "unknown data set"),
    ],
)
def test_unknown_names(tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        datasets.load(name, "train", tmp_path)


def test_unknown_splits(data_dir):
    with pytest.raises(UsageError, match=r"unknown split of digits 'tset'; did you mean 'test'\?"):
        datasets.load("digits", "tset", data_dir)
    for split in ("train[90", "train[a:b]", "train[:300%]", "train+"):
        with pytest.raises(UsageError, match="split"):
            datasets.load("digits", split, data_dir)


def test_missing_shard_is_named(data_dir, tmp_path):
    folder = as_tfrecord(data_dir, tmp_path)
    shard = folder / "digits-train.tfrecord-00001-of-00003"
    shard.unlink()
    with pytest.raises(UsageError, match=f"missing file {shard}"):
        datasets.load("digits", "train", tmp_path)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_damaged_records_are_named(data_dir, tmp_path, how):
    shutil.copytree(data_dir / "digits", tmp_path / "digits")
    [file] = tmp_path.rglob("digits-train.array_record*")
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[200] ^= 1  # of the first records
    file.write_bytes(content[: len(content) // 2] if how == "truncated" else content)
    source = datasets.load("digits", "train", tmp_path).source
    with pytest.raises(UsageError, match=rf"cannot read example 0, in {file}: .* prepare the data"):
        source[0]


def test_data_set_without_labelled_images(data_dir, tmp_path):
    folder = as_tfrecord(data_dir, tmp_path)
    features = json.loads((folder / "features.json").read_text())
    del features["featuresDict"]["features"]["label"]
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(UsageError, match="no image with a class label; it has: image, index"):
        datasets.load("digits", "train", tmp_path)


def test_unwritable_data_dir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"cannot write data sets to .*; choose another --data_dir"
    ):
        datasets.load("digits", "train", tmp_path / "file")


def test_missing_source_dir(tmp_path):
    with pytest.raises(UsageError, match="no such folder: --source_dir=/nowhere"):
        datasets.prepare("mnist", tmp_path, "/nowhere")


def test_official_builder_without_tensorflow(tmp_path, monkeypatch):
    class Builder:
        def download_and_prepare(self, **kwargs):
            raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds, "builder", lambda name, **kwargs: Builder())
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs TensorFlow .*pip install tensorflow-cpu"):
        datasets.prepare("cats_vs_dogs", tmp_path)


def test_official_builder_without_network(tmp_path, monkeypatch):
    class Builder:
        def download_and_prepare(self, **kwargs):
            raise ConnectionError("Max retries exceeded\nlong tail")

    monkeypatch.setattr(tfds, "builder", lambda name, **kwargs: Builder())
    with pytest.raises(UsageError, match=r"^cannot prepare 'cats_vs_dogs': Max retries exceeded$"):
        datasets.prepare("cats_vs_dogs", tmp_path)


def test_labels_and_class_counts_are_the_examples_own(data_dir):
    dataset = datasets.load("digits", "train[:40]", data_dir)
    expected = [dataset.source[i]["label"] for i in range(40)]
    np.testing.assert_array_equal(datasets.labels(dataset), expected)
    assert datasets.class_counts(dataset).tolist() == [expected.count(i) for i in range(10)]


def test_a_fingerprint_tells_data_apart():
    images = np.arange(64 * 4, dtype=np.uint8).reshape(4, 8, 8, 1)
    other = images.copy()
    other[3, 0, 0] = 0

    def fingerprint(images, names=("a", "b")):
        return datasets.fingerprint(from_arrays(images, np.array([0, 1, 0, 1]), names))

    assert fingerprint(images).startswith("4 examples of 2 classes, ")
    assert fingerprint(images.copy()) == fingerprint(images)
    assert len({fingerprint(images), fingerprint(other), fingerprint(images, ("a", "c"))}) == 3


def test_a_split_without_labels_has_no_classes_to_count(data_dir):
    dataset = datasets.load("digits", "train[:3]", data_dir)
    dataset = dataset._replace(source=[{"label": 2}, {"label": -1}])
    with pytest.raises(UsageError, match=r"example 1 of digits .* has label -1"):
        datasets.labels(dataset)


# Channels.


def a_data_set(channels, mean, std):
    return datasets.Dataset("own", "train", (), 2, ("a", "b"), (None, None, channels), mean, std)


@pytest.mark.parametrize(
    ("own", "channels", "mean", "std"),
    [
        (datasets.IMAGENET, 1, (0.459,), (0.226,)),
        (datasets.IMAGENET, 3, *datasets.IMAGENET),
        (datasets.IMAGENET, 4, (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.5)),
        (((0.1307,), (0.3081,)), 3, (0.1307,) * 3, (0.3081,) * 3),
        (((0.1307,), (0.3081,)), 4, (0.1307, 0.1307, 0.1307, 0.5), (0.3081, 0.3081, 0.3081, 0.5)),
    ],
)
def test_mean_and_deviation_follow_the_number_of_channels(own, channels, mean, std):
    dataset = datasets.read_as(a_data_set(len(own[0]), *own), channels)
    assert dataset.image_shape == (None, None, channels)
    assert (dataset.mean, dataset.std) == (mean, std)


def test_mean_and_deviation_may_be_given_for_any_number_of_channels():
    dataset = a_data_set(3, *datasets.IMAGENET)
    own = datasets.read_as(dataset, 4, (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 1.0))
    assert (own.mean, own.std) == ((0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 1.0))
    assert datasets.read_as(dataset, 1, mean=(0.0,)).mean == (0.0,)
    assert datasets.read_as(dataset) == dataset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "images of 2 channels are not supported; use 1, 3 or 4"),
        ({"mean": (0.5,)}, "1 values of mean do not fit images of 3 channels"),
        (
            {"channels": 1, "std": (0.2, 0.2, 0.2)},
            "3 values of std do not fit images of 1 channels",
        ),
        ({"mean": (123.7, 116.3, 103.5)}, r"mean \(123.7, .*\) is out of range"),
        ({"std": (0.2, 0.2, 0.0)}, r"std \(0.2, 0.2, 0.0\) is out of range"),
    ],
)
def test_channels_and_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        datasets.read_as(a_data_set(3, *datasets.IMAGENET), **options)
