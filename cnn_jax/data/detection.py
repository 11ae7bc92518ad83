"""Images with objects: boxes, classes and (where a data set has them) masks, in static batches.

An image is scaled to fit a square canvas, in whose upper left corner it lies. Each carries room for
a fixed number of objects and a mask that says which are there. Class 0 is the background.
"""

import io
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import grain
import numpy as np
from jaxtyping import Float
from PIL import Image

from cnn_jax.data import datasets, pipeline
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.pipeline import CACHE_BYTES, Batch
from cnn_jax.errors import UsageError


def load(name: str, split: str, data_dir: str | None = None) -> Dataset:
    """Open one split of a data set whose examples have objects, such as shapes, voc or coco.

    num_classes and class_names count the background, as class 0.

    Raises:
      UsageError: as datasets.load, or the examples have no objects with boxes.
    """
    dataset = datasets.load(name, split, data_dir)
    if len(dataset.source) and "objects" not in dataset.source[0]:
        raise UsageError(f"data set {name!r} has no objects with boxes; take shapes, voc or coco")
    return dataset._replace(
        num_classes=dataset.num_classes + 1, class_names=("background", *dataset.class_names)
    )


def fit(image: Image.Image, canvas: int) -> Image.Image:
    """Return the image scaled until its longer side is the canvas's."""
    longest = max(image.size)
    width, height = (max(1, round(side * canvas / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def read(dataset: Dataset, max_objects: int, canvas: int, index: int) -> Batch:
    """Return one example, scaled to fit the canvas.

    Returns:
      image: uint8 [canvas, canvas, 3], black beside the image.  size: int32 [2], its height and
      width.  boxes: float32 [m, 4] as (x1, y1, x2, y2) in pixels.  labels: int32 [m], from 1 on.
      valid: bool [m], the objects that are there.  difficult: bool [m], those that no evaluation
      counts.  instances: uint8 [canvas, canvas], i + 1 where object i is visible; of data sets with
      an instance mask.

    Raises:
      UsageError: more objects than there is room for, or a mask of another size than the image.
    """
    example = dataset.source[index]
    place = f"example {index} of {dataset.name} ({dataset.split})"
    objects = example["objects"]
    boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4)
    if len(boxes) > max_objects:
        raise UsageError(
            f"{place} has {len(boxes)} objects, there is room for {max_objects}; "
            f"give --max_objects={len(boxes)} at least"
        )
    image = pipeline.decode(example["image"], 3)
    scaled = fit(image, canvas)
    width, height = scaled.size
    pixels = np.zeros((canvas, canvas, 3), np.uint8)
    pixels[:height, :width] = np.asarray(scaled)

    def padded(values: Any, dtype: type) -> np.ndarray:
        values = np.asarray(values, dtype)
        out = np.zeros((max_objects, *values.shape[1:]), dtype)
        out[: len(values)] = values
        return out

    none = np.zeros(len(boxes), bool)
    found = {
        "image": pixels,
        "size": np.array([height, width], np.int32),
        # TFDS has (y1, x1, y2, x2) as shares of the image
        "boxes": padded(boxes[:, [1, 0, 3, 2]] * [width, height, width, height], np.float32),
        "labels": padded(np.asarray(objects["label"]) + 1, np.int32),
        "valid": padded(~none, bool),
        "difficult": padded(objects.get("is_difficult", objects.get("is_crowd", none)), bool),
    }
    if "instance_mask" in example:
        found["instances"] = _instances(
            example, objects, place, image.size, (width, height), canvas
        )
    return found


def _instances(example, objects, place, image_size, size, canvas) -> np.ndarray:
    """The instance mask with i + 1 for object i, whatever value stands for it in the file."""
    with Image.open(io.BytesIO(example["instance_mask"])) as mask:
        if mask.size != image_size:
            raise UsageError(
                f"{place}: a mask of {mask.width}x{mask.height} does not fit an image of "
                f"{image_size[0]}x{image_size[1]}; mend one of them"
            )
        values = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    table = np.zeros(256, np.uint8)
    table[np.asarray(objects["instance"], int)] = np.arange(1, len(objects["instance"]) + 1)
    out = np.zeros((canvas, canvas), np.uint8)
    out[: size[1], : size[0]] = table[values]
    return out


def with_proposals(example: Batch, boxes: Float[np.ndarray, "p 4"], room: int) -> Batch:
    """Return the example with the first `room` of these boxes.

    Returns:
      besides what `read` gives, proposals: float32 [room, 4]; proposed: bool [room], those that are
      there.
    """
    count = min(len(boxes), room)
    proposals, proposed = np.zeros((room, 4), np.float32), np.arange(room) < count
    proposals[:count] = boxes[:count]
    return example | {"proposals": proposals, "proposed": proposed}


def flip(example: Batch) -> Batch:
    """Return the example mirrored left to right, within the image."""
    height, width = example["size"]
    flipped = dict(example)
    for name in {"image", "instances"} & example.keys():
        plane = example[name].copy()
        plane[:height, :width] = plane[:height, :width][:, ::-1]
        flipped[name] = plane
    for name, there in (("boxes", "valid"), ("proposals", "proposed")):
        if name in example:
            x1, y1, x2, y2 = example[name].T
            moved = np.stack([width - x2, y1, width - x1, y2], -1)
            flipped[name] = np.where(example[there][:, None], moved, 0).astype(np.float32)
    return flipped


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    canvas: int,
    max_objects: int,
    flips: bool,
    seed: int,
    proposals: Sequence[Float[np.ndarray, "_p 4"]] | None = None,
    max_proposals: int = 0,
    start_step: int = 0,
    num_threads: int = 2,
) -> Iterator[Batch]:
    """Shuffled batches without end: those of `read`, each of its arrays with a leading axis.

    Args:
      flips: mirror half of the examples.
      proposals: of each example, which then carries max_proposals of them, see with_proposals.
      start_step: the number of the first batch; earlier ones are skipped without being read.
    """
    reader = partial(read, dataset, max_objects, canvas)
    if len(dataset.source) * canvas**2 * 4 <= CACHE_BYTES:
        reader = cache(reader)

    def example(index: int, rng: np.random.Generator) -> Batch:
        found = reader(index)
        if proposals is not None:
            found = with_proposals(found, proposals[index], max_proposals)
        return flip(found) if flips and rng.random() < 0.5 else found

    order = grain.MapDataset.range(len(dataset.source)).seed(seed).shuffle().repeat()
    batches = order.random_map(example).batch(batch_size)[start_step:]
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + 1)
    return iter(batches.to_iter_dataset(options))


def evaluation_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    canvas: int,
    max_objects: int,
    proposals: Sequence[Float[np.ndarray, "_p 4"]] | None = None,
    max_proposals: int = 0,
) -> Iterator[Batch]:
    """Every example once, in order; "weight" (float32 [b]) is 0 for what fills the last batch."""
    count = len(dataset.source)

    def example(number: int) -> Batch:
        index = min(number, count - 1)
        found = read(dataset, max_objects, canvas, index)
        if proposals is not None:
            found = with_proposals(found, proposals[index], max_proposals)
        return found | {"weight": np.float32(number < count)}

    for start in range(0, count, batch_size):
        examples = [example(number) for number in range(start, start + batch_size)]
        yield {name: np.stack([each[name] for each in examples]) for name in examples[0]}
