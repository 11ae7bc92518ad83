import io
import itertools

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.pipeline import evaluation_batches, first_examples, train_batches
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError

EVERYTHING = Augmentation(
    crop="resized",
    flip=True,
    policy="trivialaugment",
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    erasing=0.5,
    mixup=0.2,
    cutmix=1.0,
)


def encode(image, file_format="PNG", **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, file_format, **options)
    return file.getvalue()


def dataset(num_examples=23, size=8, channels=3):
    """Noise whose labels number the examples."""
    rng = np.random.default_rng(0)
    shape = (size, size, channels) if channels > 1 else (size, size)
    source = [
        {"image": encode(rng.integers(0, 256, shape, dtype=np.uint8)), "label": i}
        for i in range(num_examples)
    ]
    return Dataset(
        name="noise",
        split="train",
        source=source,
        num_classes=num_examples,
        class_names=tuple(map(str, range(num_examples))),
        image_shape=(size, size, channels),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


def train(data, steps, **options):
    options = {
        "batch_size": 6,
        "image_size": 8,
        "augmentation": Augmentation(),
        "seed": 0,
        "num_threads": 0,
        **options,
    }
    return list(itertools.islice(train_batches(data, **options), steps))


def evaluate(data, size=8, **options):
    options = {"preprocessing": Preprocessing(size), "num_threads": 0, **options}
    return list(evaluation_batches(data, **options))


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches])


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


# Training.


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_batches_have_the_promised_shapes_and_types(channels):
    (batch,) = train(dataset(channels=channels), 1, augmentation=EVERYTHING, image_size=12)
    shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert shapes == {
        "image": ((6, 12, 12, channels), np.uint8),
        "label": ((6,), np.int32),
        "mixed_label": ((6,), np.int32),
        "mix": ((6,), np.float32),
    }


def test_without_augmentation_the_images_are_those_of_the_source():
    data = dataset()
    (batch,) = train(data, 1)
    assert batch.keys() == {"image", "label"}
    for image, label in zip(batch["image"], batch["label"], strict=True):
        stored = Image.open(io.BytesIO(data.source[label]["image"]))
        np.testing.assert_array_equal(image, np.asarray(stored))


def test_each_epoch_holds_every_example_once_in_another_order():
    order = labels(train(dataset(), 23)).reshape(6, 23)
    for epoch in order:
        assert sorted(epoch) == list(range(23))
    assert len({tuple(epoch) for epoch in order}) == 6


def test_the_alternating_flip_mirrors_each_image_in_every_second_epoch():
    data = dataset()
    batches = train(data, 23, augmentation=Augmentation(alternating_flip=True))
    images = np.concatenate([batch["image"] for batch in batches]).reshape(6, 23, 8, 8, 3)
    numbers = labels(batches).reshape(6, 23)
    mirrored = np.zeros((6, 23), bool)
    for epoch in range(6):
        for image, number in zip(images[epoch], numbers[epoch], strict=True):
            stored = np.asarray(Image.open(io.BytesIO(data.source[number]["image"])))
            mirrored[epoch, number] = np.array_equal(image, stored[:, ::-1])
            assert mirrored[epoch, number] or np.array_equal(image, stored)
    assert 0 < mirrored[0].sum() < 23
    np.testing.assert_array_equal(mirrored[1:], ~mirrored[:-1])


def drawn(data, steps, classes, **options):
    """The examples' numbers and classes in the order in which a balanced sampler draws them."""
    numbers = labels(train(data, steps, balanced_by=classes, **options))
    return numbers, classes[numbers]


def test_a_balanced_sampler_draws_every_class_equally_often():
    classes = np.repeat([0, 1, 2], [17, 4, 2])
    numbers, found = drawn(dataset(), 34, classes)  # 204 examples, 68 of each class
    for each in found.reshape(-1, 3):
        assert sorted(each) == [0, 1, 2]
    assert len({tuple(each) for each in found.reshape(-1, 3)}) == 6
    for label, size in enumerate((17, 4, 2)):  # all examples of a class before one comes again
        for epoch in numbers[found == label].reshape(-1, size):
            assert sorted(epoch) == list(np.flatnonzero(classes == label))
    rarely = numbers[found == 0].reshape(4, 17)
    assert len({tuple(epoch) for epoch in rarely}) == 4


def test_a_balanced_sampler_is_decided_by_seed_and_step():
    data, options = dataset(), {"balanced_by": np.repeat([0, 1], [20, 3])}
    whole = train(data, 8, augmentation=EVERYTHING, **options)
    later = train(data, 3, augmentation=EVERYTHING, start_step=5, num_threads=3, **options)
    assert_same(later, whole[5:])
    other = train(data, 8, augmentation=EVERYTHING, seed=1, **options)
    assert not np.array_equal(labels(other), labels(whole))


def test_processes_share_what_a_balanced_sampler_draws():
    options = {"balanced_by": np.repeat([0, 1], [20, 3])}
    whole = labels(train(dataset(), 7, **options)).reshape(7, 6)
    shares = [
        labels(train(dataset(), 7, process_index=i, process_count=3, **options)).reshape(7, 2)
        for i in range(3)
    ]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


def test_a_balanced_sampler_passes_over_classes_without_examples():
    _, found = drawn(dataset(), 4, np.repeat([1, 4], [20, 3]))
    assert np.bincount(found).tolist() == [0, 12, 0, 0, 12]


def test_the_alternating_flip_follows_a_balanced_samplers_own_epochs():
    data, classes = dataset(), np.repeat([0, 1], [21, 2])
    batches = train(data, 4, augmentation=Augmentation(alternating_flip=True), balanced_by=classes)
    images = np.concatenate([batch["image"] for batch in batches])
    numbers = labels(batches)
    for number in (21, 22):  # each comes six times
        seen = [image.tobytes() for image in images[numbers == number]]
        assert seen[0::2] == [seen[0]] * 3
        assert seen[1::2] == [seen[1]] * 3
        assert seen[0] != seen[1]


def test_the_seed_decides_order_and_augmentation():
    data = dataset()
    assert_same(train(data, 8, augmentation=EVERYTHING), train(data, 8, augmentation=EVERYTHING))
    assert not np.array_equal(labels(train(data, 8, seed=1)), labels(train(data, 8, seed=2)))
    one = dataset(num_examples=1, size=16)
    first, second = (
        train(one, 1, augmentation=Augmentation(crop="pad"), seed=seed)[0] for seed in (1, 2)
    )
    assert not np.array_equal(first["image"], second["image"])


def test_an_example_is_augmented_anew_each_time_it_comes():
    one = dataset(num_examples=1)
    (batch,) = train(one, 1, augmentation=Augmentation(crop="pad"), batch_size=64)
    distinct = {image.tobytes() for image in batch["image"]}
    # 64 draws of 81 places: 44 distinct ones are expected.
    assert len(distinct) > 30


@pytest.mark.parametrize("num_threads", [1, 4, None])
def test_the_number_of_threads_changes_nothing(num_threads):
    data = dataset()
    expected = train(data, 12, augmentation=EVERYTHING)
    assert_same(train(data, 12, augmentation=EVERYTHING, num_threads=num_threads), expected)


@pytest.mark.parametrize("start_step", [1, 4, 11])
@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_resumed_stream_continues_the_interrupted_one_bit_for_bit(start_step, num_threads):
    data = dataset()
    uninterrupted = train(data, 14, augmentation=EVERYTHING)
    resumed = train(
        data,
        14 - start_step,
        augmentation=EVERYTHING,
        start_step=start_step,
        num_threads=num_threads,
    )
    assert_same(resumed, uninterrupted[start_step:])


def test_resuming_far_ahead_reads_nothing_of_what_it_skips():
    (batch,) = train(dataset(), 1, start_step=10**9)
    assert len(batch["label"]) == 6


def test_keeping_decoded_images_changes_nothing(monkeypatch):
    data = dataset()
    kept = train(data, 12, augmentation=EVERYTHING)
    monkeypatch.setattr("cnn_jax.data.pipeline.CACHE_BYTES", 0)
    assert_same(train(data, 12, augmentation=EVERYTHING), kept)


@pytest.mark.parametrize("process_count", [2, 3])
def test_processes_divide_each_global_batch_into_parts_one_after_the_other(process_count):
    data = dataset()
    augmentation = EVERYTHING._replace(mixup=0.0, cutmix=0.0)
    together = train(data, 9, augmentation=augmentation)
    for process in range(process_count):
        alone = train(
            data,
            9,
            augmentation=augmentation,
            process_index=process,
            process_count=process_count,
        )
        shares = [
            {key: np.split(v, process_count)[process] for key, v in b.items()} for b in together
        ]
        assert_same(alone, shares)


def test_all_processes_mix_by_the_same_share():
    shares = [
        [batch["mix"] for batch in train(dataset(), 5, augmentation=Augmentation(mixup=0.2), **of)]
        for of in (
            {"process_index": 0, "process_count": 2},
            {"process_index": 1, "process_count": 2},
        )
    ]
    np.testing.assert_array_equal(*shares)
    assert len({share[0] for share in shares[0]}) == 5


def test_erased_pixels_take_the_mean_of_the_data_set():
    data = dataset(num_examples=1)._replace(mean=(0.0, 0.5, 1.0))
    data.source[0]["image"] = encode(np.full((8, 8, 3), 7, np.uint8))
    (batch,) = train(data, 1, augmentation=Augmentation(erasing=1.0), batch_size=32)
    colours = {tuple(map(int, pixel)) for pixel in batch["image"].reshape(-1, 3)}
    assert colours == {(7, 7, 7), (0, 128, 255)}


# Evaluation.


@pytest.mark.parametrize("num_examples", [1, 5, 6, 7, 23, 24])
@pytest.mark.parametrize(("batch_size", "process_count"), [(6, 1), (6, 2), (6, 3), (6, 6), (1, 1)])
def test_every_example_counts_once_on_any_number_of_processes(
    num_examples, batch_size, process_count
):
    data = dataset(num_examples)
    seen, lengths = [], set()
    for process in range(process_count):
        batches = evaluate(
            data, batch_size=batch_size, process_index=process, process_count=process_count
        )
        lengths.add(len(batches))
        for batch in batches:
            assert batch["image"].shape == (batch_size // process_count, 8, 8, 3)
            assert set(batch["weight"]) <= {0, 1}
            seen += list(batch["label"][batch["weight"] == 1])
    assert sorted(seen) == list(range(num_examples))
    assert lengths == {-(-num_examples // batch_size)}


def test_evaluation_keeps_the_order_and_pads_with_zeros():
    batches = evaluate(dataset(5), batch_size=4)
    np.testing.assert_array_equal(labels(batches), [0, 1, 2, 3, 4, 0, 0, 0])
    np.testing.assert_array_equal(batches[1]["weight"], [1, 0, 0, 0])
    assert batches[1]["weight"].dtype == np.float32
    assert not batches[1]["image"][1:].any()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_ten_crops_come_as_an_axis_of_their_own(channels):
    options = {"preprocessing": Preprocessing(image_size=6, resize=8), "batch_size": 4}
    batches = evaluate(dataset(5, channels=channels), ten_crop=True, **options)
    assert [batch["image"].shape for batch in batches] == [(4, 10, 6, 6, channels)] * 2
    single = evaluate(dataset(5, channels=channels), **options)
    np.testing.assert_array_equal(batches[0]["image"][:, 4], single[0]["image"])


def test_evaluation_does_not_depend_on_threads():
    data = dataset()
    assert_same(evaluate(data, batch_size=4), evaluate(data, batch_size=4, num_threads=3))


def test_images_of_other_sizes_are_resized():
    data = dataset()
    data.source[0]["image"] = encode(np.zeros((20, 30, 3), np.uint8), "JPEG")
    assert evaluate(data, batch_size=23)[0]["image"].shape == (23, 8, 8, 3)
    for crop in ("none", "pad", "resized"):
        (batch,) = train(data, 1, batch_size=23, augmentation=Augmentation(crop=crop))
        assert batch["image"].shape == (23, 8, 8, 3)


# Errors.


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda encoded: b"no image", "not an image"),
        (lambda encoded: encoded[: len(encoded) // 2], "not a readable image"),
    ],
)
def test_a_broken_image_is_named(num_threads, damage, complaint):
    data = dataset()
    data.source[7]["image"] = damage(data.source[7]["image"])
    message = rf"example 7 of noise \(train\): {complaint}"
    with pytest.raises(UsageError, match=message):
        train(data, 4, num_threads=num_threads)
    with pytest.raises(UsageError, match=message):
        evaluate(data, batch_size=4, num_threads=num_threads)


def test_a_broken_file_is_named():
    data = dataset()
    data.source[7].update(image=b"no image", filename="cats/7.jpg")
    with pytest.raises(UsageError, match=r"^cats/7\.jpg: not an image"):
        evaluate(data, batch_size=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": 5, "process_count": 2}, "batch size 5 does not divide among 2 processes"),
        ({"process_index": 1}, "process 1 of 1 does not exist"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"start_step": -1}, "start step -1 is negative"),
        ({"num_threads": -1}, "num_threads -1 is negative"),
        ({"image_size": 0}, "image size 0"),
        ({"augmentation": Augmentation(crop="pads")}, "did you mean 'pad'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_once(options, message):
    data = dataset()
    arguments = {"batch_size": 6, "image_size": 8, "augmentation": Augmentation(), "seed": 0}
    with pytest.raises(UsageError, match=message):
        train_batches(data, **{**arguments, **options})


def test_an_empty_data_set_is_refused():
    with pytest.raises(UsageError, match=r"noise \(train\) has no examples"):
        train(dataset()._replace(source=[]), 1)


@pytest.mark.parametrize(("count", "expected"), [(None, 300), (5, 5), (200, 200), (1000, 300)])
def test_the_first_examples_come_as_arrays_of_pixels_from_0_to_1(count, expected):
    data = dataset(300)
    images, labels = first_examples(data, Preprocessing(8, 8), count)
    assert (images.dtype, images.shape) == (np.float32, (expected, 8, 8, 3))
    np.testing.assert_array_equal(labels, np.arange(expected))
    last = np.asarray(Image.open(io.BytesIO(data.source[expected - 1]["image"])))
    np.testing.assert_array_equal(images[-1], last.astype(np.float32) / 255)
