"""The input pipeline: a data set's examples as batches, the same ones for any number of threads.

Batch k of B examples holds the global examples k * B to (k + 1) * B; of these, process p of n
yields the p-th of n parts, in order. So what a global batch holds and where, augmentation included,
depends on the seed alone; only mixup and cutmix, which pair the images of one process, know the
number of processes.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache, partial
from typing import Any

import grain
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps

from cnn_jax.data import augmentation as augmentations
from cnn_jax.data import preprocessing as preprocessings
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.decoding import decode
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UnreadableImage, UsageError
from cnn_jax.runtime.cores import cores

Batch = dict[str, np.ndarray]

# The most that decoded training images may take to be kept in memory.
CACHE_BYTES = 2**28


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    image_size: int,
    augmentation: Augmentation,
    seed: int,
    start_step: int = 0,
    num_threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    balanced_by: Int[np.ndarray, " n"] | None = None,
) -> Iterator[Batch]:
    """Shuffled and augmented batches without end; epochs follow each other within a batch.

    Args:
      batch_size: examples in a global batch, of which each process yields its share.
      image_size: height and width of the images, in pixels.
      seed: of shuffling and augmentation, 0 to 2**32 - 1.
      start_step: the number of the first batch; earlier ones are skipped without being read.
      num_threads: threads that build whole batches; 0: the caller's; None: one a core, at most 16.
      balanced_by: each example's class: all classes are then drawn equally often, see balanced.

    Yields:
      {"image": uint8 [b, h, w, c], "label": int32 [b]} with b = batch_size / process_count; mixup
      and cutmix add {"mixed_label": int32 [b], "mix": float32 [b]}, where mix is label's share.

    Raises:
      UsageError: arguments that do not fit, or (while iterating) an image that cannot be read.
    """
    augmentations.validate(augmentation)
    preprocessings.validate(Preprocessing(image_size))
    fill = fill_colour(dataset)
    read = readable(dataset, cached(partial(_read, dataset), dataset))

    def example(index: int, epoch: int, rng: np.random.Generator) -> Batch:
        image, label = read(index)
        if augmentation.alternating_flip:
            first = np.random.default_rng((seed, index, 1)).integers(2)  # whatever the epoch
            if (first + epoch) % 2:
                image = ImageOps.mirror(image)
        image = augmentations.augment(image, rng, augmentation, image_size=image_size, fill=fill)
        return {"image": image, "label": label}

    mix = None
    if augmentation.mixup or augmentation.cutmix:
        mix = partial(augmentations.mixup_and_cutmix, options=augmentation)
    return shuffled_batches(
        dataset,
        example,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        num_threads=num_threads,
        process_index=process_index,
        process_count=process_count,
        balanced_by=balanced_by,
        change=mix,
    )


def fill_colour(dataset: Dataset) -> UInt8[np.ndarray, " c"]:
    """The colour that normalises to zero."""
    return np.rint(255 * np.asarray(dataset.mean)).astype(np.uint8)


def cached(read: Callable, dataset: Dataset, channels: int | None = None) -> Callable:
    """Make read(index) remember its results where they all fit CACHE_BYTES.

    A small image takes longer to decode than to augment.

    Args:
      channels: bytes a pixel that a result holds; by default the image's.
    """
    *sizes, own = dataset.image_shape
    shape = (*sizes, channels or own)
    fits = None not in shape and len(dataset.source) * math.prod(shape) <= CACHE_BYTES
    return cache(read) if fits else read


def shuffled_batches(
    dataset: Dataset,
    example: Callable[[int, int, np.random.Generator], Batch],
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    balanced_by: Int[np.ndarray, " n"] | None = None,
    change: Callable[[Batch, np.random.Generator], Batch] | None = None,
) -> Iterator[Batch]:
    """Batches without end of example(index, epoch, rng), with the arguments of train_batches.

    Args:
      change: f(batch, rng) -> batch, of one process's share.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed} is out of range; give 0 to 2**32 - 1")
    if start_step < 0:
        raise UsageError(f"start step {start_step} is negative; give 0 or more")
    local_size = local_batch_size(dataset, batch_size, process_index, process_count)
    num_examples = len(dataset.source)

    visit = shuffled(num_examples, seed) if balanced_by is None else balanced(balanced_by, seed)

    # Random numbers belong to the position in the global stream: slice after drawing them.
    stream = grain.MapDataset.range(num_examples).repeat(epochs_without_end(num_examples))
    stream = stream.map_with_index(lambda position, _: visit(position))
    examples = stream.seed(seed).random_map(lambda visit, rng: example(*visit, rng))
    batches = share_of_batches(examples, local_size, process_index, process_count, seed)
    if change is not None:
        batches = batches.random_map(change)
    return iterate(batches[start_step:], num_threads)


def share_of_batches(
    examples: grain.MapDataset, local_size: int, process_index: int, process_count: int, seed: int
) -> grain.MapDataset:
    """Return a process's part of each global batch of the examples; seed: of what follows."""
    if process_count == 1:
        return examples.batch(local_size)

    def example(number: int) -> Batch:
        batch, place = divmod(number, local_size)
        return examples[(batch * process_count + process_index) * local_size + place]

    own = grain.MapDataset.range(len(examples) // process_count)
    return own.seed(seed).map(example).batch(local_size)


def epochs_without_end(num_examples: int) -> int:
    """Return more epochs than anybody trains.

    Not grain's endless repeat, whose length overflows in batches of one.
    """
    return 2**50 // num_examples


def shuffled(num_examples: int, seed: int) -> Callable[[int], tuple[int, int]]:
    """Return visit(position) -> (example, epoch): every example once an epoch, in random order."""

    # Not grain's shuffle, whose time an index grows as the data set shrinks: .3 ms at 100 examples.
    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(num_examples)

    def visit(position: int) -> tuple[int, int]:
        epoch, place = divmod(position, num_examples)
        return int(order(epoch)[place]), epoch

    return visit


def balanced(labels: Int[np.ndarray, " n"], seed: int) -> Callable[[int], tuple[int, int]]:
    """Return visit(position) -> (example, epoch) that visits all classes equally often.

    Of k classes, every k positions from a multiple of k on hold each class once, in random order.
    A class shows all of its examples before one comes again: the example's epoch counts that.
    """
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    @lru_cache(maxsize=64)
    def order(round: int) -> np.ndarray:
        return np.random.default_rng((seed, round, 0)).permutation(len(classes))

    @lru_cache(maxsize=2 * len(classes))
    def members(number: int, epoch: int) -> np.ndarray:
        random = np.random.default_rng((seed, epoch, number, 1))
        return random.permutation(classes[number])

    def visit(position: int) -> tuple[int, int]:
        round, place = divmod(position, len(classes))
        number = int(order(round)[place])
        epoch, turn = divmod(round, len(classes[number]))
        return int(members(number, epoch)[turn]), epoch

    return visit


def evaluation_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    preprocessing: Preprocessing,
    ten_crop: bool = False,
    num_threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every example once, in order, in as many batches on each process.

    Args:
      batch_size: examples in a global batch, of which each process yields its share.
      ten_crop: ten crops of each image instead of the central one.
      num_threads: as in train_batches.

    Yields:
      {"image": uint8 [b, h, w, c], or [b, 10, h, w, c] with ten_crop, "label": int32 [b], "weight":
      float32 [b]}: 1 for an example, 0 for the padding (black, label 0) that fills the last batch.

    Raises:
      UsageError: arguments that do not fit, or (while iterating) an image that cannot be read.
    """
    preprocessings.validate(preprocessing)
    size, channels = preprocessing.image_size, dataset.image_shape[-1]
    shape = (10, size, size, channels) if ten_crop else (size, size, channels)
    padding = {
        "image": np.zeros(shape, np.uint8),
        "label": np.int32(0),
        "weight": np.float32(0),
    }

    def example(index: int) -> Batch:
        image, label = _read(dataset, index)
        if ten_crop:
            image = preprocessings.ten_crop(image, preprocessing)
        else:
            image = preprocessings.to_array(preprocessings.preprocess(image, preprocessing))
        return {"image": image, "label": label, "weight": np.float32(1)}

    return ordered_batches(
        dataset,
        example,
        padding,
        batch_size=batch_size,
        num_threads=num_threads,
        process_index=process_index,
        process_count=process_count,
    )


def first_examples(
    dataset: Dataset, preprocessing: Preprocessing, count: int | None = None
) -> tuple[Float[np.ndarray, "n h w c"], Int[np.ndarray, " n"]]:
    """Return the pixels, float32 in 0..1, and the labels of the first examples in memory.

    Args:
      count: at most so many; by default all.
    """
    count = min(count or len(dataset.source), len(dataset.source))
    size = min(count, 128)
    batches = evaluation_batches(dataset, batch_size=size, preprocessing=preprocessing)
    taken = list(itertools.islice(batches, math.ceil(count / size)))
    images, labels = (np.concatenate([each[name] for each in taken]) for name in ("image", "label"))
    return images[:count].astype(np.float32) / 255, labels[:count]


def ordered_batches(
    dataset: Dataset,
    example: Callable[[int], Batch],
    padding: Batch,
    *,
    batch_size: int,
    num_threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Batches of example(index), each index once, and of `padding` that fills the last of them."""
    local_size = local_batch_size(dataset, batch_size, process_index, process_count)
    num_examples = len(dataset.source)

    def padded_example(index: int) -> Batch:
        if index >= num_examples:
            return padding
        try:
            return example(index)
        except UnreadableImage as error:
            pass_over(dataset, error)
            return padding

    padded = math.ceil(num_examples / batch_size) * batch_size
    examples = grain.MapDataset.range(padded)[process_index::process_count].map(padded_example)
    return iterate(examples.batch(local_size), num_threads)


def _read(dataset: Dataset, index: int) -> tuple[Image.Image, np.int32]:
    example = dataset.source[index]
    return decoded(dataset, example, index), np.int32(example["label"])


def decoded(
    dataset: Dataset, example: Mapping[str, Any], index: int, channels: int | None = None
) -> Image.Image:
    """Return the image of an example, by default in the data set's channels.

    Raises:
      UnreadableImage: it cannot be decoded.
    """
    try:
        return decode(example["image"], channels or dataset.image_shape[-1])
    except UsageError as error:
        place = f"example {index} of {dataset.name} ({dataset.split})"
        raise UnreadableImage(f"{example.get('filename', place)}: {error}") from error


def pass_over(dataset: Dataset, error: UnreadableImage) -> None:
    """Keep what is wrong with an image, or raise it where the data set does not skip any."""
    if dataset.skipped is None:
        raise error
    dataset.skipped.add(str(error))


def readable(dataset: Dataset, read: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return read(index), in which the next example stands in for an image that is skipped."""

    def read_on(index: int) -> Any:
        count = len(dataset.source)
        for candidate in range(index, index + count):
            try:
                return read(candidate % count)
            except UnreadableImage as error:
                pass_over(dataset, error)
        raise UsageError(f"no image of {dataset.name} ({dataset.split}) can be decoded")

    return read_on


def local_batch_size(
    dataset: Dataset, batch_size: int, process_index: int, process_count: int
) -> int:
    """Return a process's share of a batch of the data set; UsageError where it has none."""
    if not len(dataset.source):
        raise UsageError(f"{dataset.name} ({dataset.split}) has no examples; choose another split")
    if not 0 <= process_index < process_count:
        raise UsageError(f"process {process_index} of {process_count} does not exist")
    if batch_size < 1 or batch_size % process_count:
        raise UsageError(
            f"batch size {batch_size} does not divide among {process_count} processes; "
            "choose a positive multiple"
        )
    return batch_size // process_count


def iterate(batches: grain.MapDataset, num_threads: int | None) -> Iterator[Batch]:
    """Return an iterator over the batches, read ahead by so many threads, see train_batches."""
    if num_threads is None:
        num_threads = min(cores(), 16)
    if num_threads < 0:
        raise UsageError(f"num_threads {num_threads} is negative; give 0 or more")
    # One batch for each thread to work at, and one that waits.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + 1)
    return iter(batches.to_iter_dataset(options))
