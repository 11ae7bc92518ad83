import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnn_jax.data import datasets
from cnn_jax.data.builders import cifar, mnist, originals, shapes
from cnn_jax.errors import UsageError


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def write(builder):
    """Prepares a data set without downloads or progress bars."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(file_format="array_record", download_config=config)


def read(name, split, data_dir):
    return list(datasets.load(name, split, data_dir).source)


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("digits")
    datasets.prepare("digits", data_dir)
    return data_dir


def test_digits_are_scikit_learns_bit_for_bit(digits_dir):
    examples = read("digits", "train+test", digits_dir)
    examples.sort(key=lambda example: example["index"])
    original = load_digits()
    assert [example["index"] for example in examples] == list(range(1797))
    np.testing.assert_array_equal([example["label"] for example in examples], original.target)
    images = np.stack([decode(example["image"]) for example in examples])
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_array_equal(np.round(images * (16 / 255)), original.images)


def test_digits_split_is_a_fifth_of_each_class(digits_dir):
    counts = [
        np.bincount([example["label"] for example in read("digits", split, digits_dir)])
        for split in ("train", "test")
    ]
    np.testing.assert_array_equal(counts[1], np.round(sum(counts) * 0.2))
    assert counts[0].sum() == 1438


def test_digits_split_never_changes(digits_dir):
    indices = sorted(example["index"] for example in read("digits", "test", digits_dir))
    digest = hashlib.sha256(np.array(indices, np.int64).tobytes()).hexdigest()
    assert digest == "3530be80b9605f4c4adc46d0ee3006a356c16968a8efcc58f24463bc820d5ef9"


def test_digits_statistics(digits_dir):
    dataset = datasets.load("digits", "train", digits_dir)
    pixels = np.stack([decode(example["image"]) for example in dataset.source]) / 255
    np.testing.assert_allclose(pixels.mean(), dataset.mean[0], atol=5e-5)
    np.testing.assert_allclose(pixels.std(), dataset.std[0], atol=5e-5)


@pytest.fixture(scope="module")
def shapes_dir(tmp_path_factory):
    """The first 100 and 20 scenes."""
    data_dir = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "EXAMPLES", {"train": 100, "test": 20})
        datasets.prepare("shapes", data_dir)
    return data_dir


def test_shapes_annotations_agree(shapes_dir):
    examples = read("shapes", "train", shapes_dir)
    assert len(examples) == 100
    for example in examples:
        assert decode(example["image"]).shape == (128, 128, 3)
        objects, instances = example["objects"], decode(example["instance_mask"])
        segmentation = decode(example["segmentation_mask"])
        assert list(objects["instance"]) == list(range(1, instances.max() + 1))
        np.testing.assert_array_equal(segmentation == 0, instances == 0)
        areas = []
        for box, label, instance in zip(
            objects["bbox"], objects["label"], objects["instance"], strict=True
        ):
            mask = instances == instance
            assert (segmentation[mask] == label + 1).all()
            rows, columns = np.nonzero(mask)
            edges = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            np.testing.assert_array_equal(box, np.array(edges, np.float32) / 128)
            areas.append(mask.sum())
        assert objects["label"][np.argmax(areas)] == example["label"]
        assert max(areas) >= 1.25 * max(sorted(areas)[:-1], default=0)


def test_shapes_masks_are_grey_level_pngs(shapes_dir):
    example = read("shapes", "test[:1]", shapes_dir)[0]
    for key in ("segmentation_mask", "instance_mask"):
        image = Image.open(io.BytesIO(example[key]))
        assert (image.format, image.mode, image.size) == ("PNG", "L", (128, 128))


def test_shapes_are_drawn_by_the_seed():
    first, second, other = (shapes.draw_scene(np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.instances, second.instances)
    assert first.labels == second.labels
    assert (first.image != other.image).any()


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_every_outline_has_area_one_around_its_centroid(name):
    outline = shapes.OUTLINES[name]
    x, y = outline.T
    following_x, following_y = np.roll(outline, -1, axis=0).T
    cross = x * following_y - following_x * y
    np.testing.assert_allclose(abs(cross.sum()) / 2, 1)
    np.testing.assert_allclose(((x + following_x) * cross).sum(), 0, atol=1e-12)
    np.testing.assert_allclose(((y + following_y) * cross).sum(), 0, atol=1e-12)


@pytest.mark.slow
def test_shapes_statistics_and_balance(tmp_path):
    dataset = datasets.load("shapes", "train", tmp_path)
    pixels = np.stack([decode(example["image"]) for example in dataset.source]) / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), dataset.mean, atol=5e-5)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), dataset.std, atol=5e-5)
    counts = np.bincount([example["label"] for example in dataset.source])
    assert counts.sum() == 4000
    assert counts.min() > 440  # of 500 +- 21


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
    return path


@pytest.mark.parametrize("builder", [mnist.MNIST, mnist.FashionMNIST])
def test_mnist_from_idx_files(tmp_path, builder):
    rng = np.random.default_rng(0)
    arrays, files = {}, {}
    for split, count in [("train", 20), ("test", 10)]:
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        # The first two pixels number the example, as preparing shuffles.
        images[:, 0, 0], images[:, 0, 1] = np.arange(count), count
        arrays[split] = images, rng.integers(0, 10, count, dtype=np.uint8)
        for kind, array in zip(("images", "labels"), arrays[split], strict=True):
            key = f"{split}_{kind}"
            files[key] = write_idx(tmp_path / key, array)
    write(builder(data_dir=tmp_path, files=files))
    for split, (images, labels) in arrays.items():
        dataset = datasets.load(builder.name, split, tmp_path)
        assert len(dataset.source) == len(images)
        for example in dataset.source:
            image = decode(example["image"])
            index = image[0, 0]
            np.testing.assert_array_equal(image, images[index])
            assert example["label"] == labels[index]
    assert dataset.image_shape == (28, 28, 1)
    assert len(dataset.mean) == 1
    assert dataset.class_names[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[builder.name]


def test_damaged_idx_file_is_named(tmp_path):
    path = write_idx(tmp_path / "images.gz", np.zeros((3, 28, 28), np.uint8))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UsageError, match=f"{path} is no gzipped IDX file"):
        mnist.read_idx(path)


def write_archive(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def cifar_batches(builder, rng):
    """Images [n, 32, 32, 3] and labels {feature: [n]} of each file, and the class names."""
    names = {key: [f"{key}_{i}" for i in range(n)] for key, n in builder.LABELS.items()}
    batches = {}
    for files in builder.FILES.values():
        for file in files:
            images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
            labels = {key: rng.integers(0, n, 4) for key, n in builder.LABELS.items()}
            batches[file] = images, labels
    return names, batches


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def binary_archive(builder, path, names, batches):
    files = {}
    for key, file in builder.NAME_FILES.items():
        files[file] = "\n".join([*names[key], ""]).encode()
    for file, (images, labels) in batches.items():
        columns = [*(labels[key][:, None] for key in builder.LABELS), planes(images)]
        files[f"{file}.bin"] = np.concatenate(columns, axis=1).astype(np.uint8).tobytes()
    return write_archive(path, "cifar-binary", files)


def python_archive(builder, path, names, batches):
    keys = builder.PICKLED_KEYS
    meta = {names_key: names[key] for key, (_, names_key) in keys.items()}
    files = {builder.PICKLED_NAME_FILE: pickle.dumps(meta)}
    for file, (images, labels) in batches.items():
        batch = {labels_key.encode(): list(labels[key]) for key, (labels_key, _) in keys.items()}
        files[file] = pickle.dumps(batch | {b"data": planes(images)})
    return write_archive(path, "cifar-py", files)


@pytest.mark.parametrize("make_archive", [binary_archive, python_archive])
@pytest.mark.parametrize("builder", [cifar.Cifar10, cifar.Cifar100])
def test_cifar_from_archives(tmp_path, builder, make_archive):
    names, batches = cifar_batches(builder, np.random.default_rng(0))
    archive = make_archive(builder, tmp_path / "cifar.tar.gz", names, batches)
    write(builder(data_dir=tmp_path, files={"archive": archive}))
    for split, files in builder.FILES.items():
        images = np.concatenate([batches[file][0] for file in files])
        dataset = datasets.load(builder.name, split, tmp_path)
        assert len(dataset.source) == len(images)
        for example in dataset.source:
            prefix, number = example["id"].decode().split("_")
            assert prefix == split
            file, index = files[int(number) // 4], int(number) % 4
            np.testing.assert_array_equal(decode(example["image"]), batches[file][0][index])
            for key in builder.LABELS:
                assert example[key] == batches[file][1][key][index]
    assert dataset.class_names == tuple(names["label"])
    assert dataset.image_shape == (32, 32, 3)


def test_an_archive_of_something_else_is_named(tmp_path):
    archive = write_archive(tmp_path / "other.tar.gz", "folder", {"readme.txt": b"hello"})
    with pytest.raises(UsageError, match=f"{archive} is no cifar10 archive"):
        write(cifar.Cifar10(data_dir=tmp_path, files={"archive": archive}))


@pytest.fixture
def published(tmp_path):
    """A published file that a file:// URL serves, and its content."""
    content = b"the original file"
    (tmp_path / "server").mkdir()
    path = tmp_path / "server" / "data.gz"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return originals.OriginalFile(path.as_uri(), len(content), sha256)


def test_download_is_verified_and_kept(tmp_path, published):
    path = originals.obtain([published], None, tmp_path / "downloads")
    assert path.read_bytes() == b"the original file"
    (tmp_path / "server" / "data.gz").unlink()
    assert originals.obtain([published], None, tmp_path / "downloads") == path


def test_download_of_another_file_is_refused(tmp_path, published):
    (tmp_path / "server" / "data.gz").write_bytes(b"the 0riginal file")
    with pytest.raises(UsageError, match="is not the published file"):
        originals.obtain([published], None, tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_failed_download_says_what_to_do(tmp_path, published):
    (tmp_path / "server" / "data.gz").unlink()
    with pytest.raises(UsageError, match=r"cannot download file:.*data.gz .*--source_dir"):
        originals.obtain([published], None, tmp_path / "downloads")


def test_file_is_found_in_a_folder_among_others_of_its_name(tmp_path, published):
    for folder, content in [("a", b"another file.."), ("b", b"the original file")]:
        (tmp_path / "mine" / folder).mkdir(parents=True)
        (tmp_path / "mine" / folder / "data.gz").write_bytes(content)
    path = originals.obtain([published], tmp_path / "mine", tmp_path / "downloads")
    assert path == tmp_path / "mine" / "b" / "data.gz"


def test_damaged_file_in_a_folder_is_named(tmp_path, published):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.gz").write_bytes(b"the 0riginal file")
    with pytest.raises(UsageError, match=f"{tmp_path}/mine/data.gz is damaged or another file"):
        originals.obtain([published], tmp_path / "mine", tmp_path / "downloads")


def test_file_missing_from_a_folder_is_named(tmp_path, published):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match=f"no data.gz in {tmp_path}/mine; download it from file"):
        originals.obtain([published], tmp_path / "mine", tmp_path / "downloads")


def test_originals_are_those_tfds_knows():
    """Sizes and checksums agree with the lists that tensorflow_datasets ships."""
    from tensorflow_datasets.core.download import checksums

    for builder, files in [
        (mnist.MNIST, mnist.MNIST.ORIGINALS.values()),
        (mnist.FashionMNIST, mnist.FashionMNIST.ORIGINALS.values()),
        (cifar.Cifar10, cifar.Cifar10.ORIGINALS[:1]),
        (cifar.Cifar100, cifar.Cifar100.ORIGINALS[:1]),
    ]:
        known = checksums.load_url_infos(checksums._checksum_paths()[builder.name])
        for file in files:
            assert (known[file.url].size, known[file.url].checksum) == (file.size, file.sha256)
