"""Images with objects: boxes, classes and (where a data set has them) masks, in static batches.

An image is scaled to fit a square canvas, in whose upper left corner it lies. Each carries room for
a fixed number of objects and a mask that says which are there. Class 0 is the background.
"""

import io
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from pycocotools import mask as run_lengths

from cnn_jax.data import coco, datasets, geometry
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.pipeline import (
    CACHE_BYTES,
    Batch,
    decoded,
    epochs_without_end,
    iterate,
    local_batch_size,
    pass_over,
    readable,
    share_of_batches,
)
from cnn_jax.errors import UnreadableImage, UsageError


class Objects(NamedTuple):
    """The true objects of an image, in the pixels of its file.

    boxes: (x1, y1, x2, y2).  labels: from 1 on.  difficult: those that no evaluation counts.
    areas: in pixels, as the data set gives them, else of the mask, else of the box.
    masks: run-length encodings of pycocotools, as an array; None of data sets without masks.
    """

    boxes: Float[np.ndarray, "m 4"]
    labels: Int[np.ndarray, " m"]
    difficult: Bool[np.ndarray, " m"]
    areas: Float[np.ndarray, " m"]
    masks: np.ndarray | None


def load(name: str, split: str, data_dir: str | None = None) -> Dataset:
    """Open one split of a data set whose examples have objects: shapes, voc, coco, coco:FOLDER.

    num_classes and class_names count the background, as class 0.

    Raises:
      UsageError: as datasets.load and coco.load, no examples, or they have no objects with boxes.
    """
    if name.startswith(coco.PREFIX):
        dataset = datasets.load_coco(name, split)
    else:
        dataset = datasets.load(name, split, data_dir)
    if not len(dataset.source):
        raise UsageError(f"{name} ({split}) has no examples; choose another split")
    if "objects" not in dataset.source[0]:
        raise UsageError(
            f"data set {name!r} has no objects with boxes; take shapes, voc, coco or coco:FOLDER"
        )
    return dataset._replace(
        num_classes=dataset.num_classes + 1, class_names=("background", *dataset.class_names)
    )


def check_masks(dataset: Dataset) -> None:
    """Raise UsageError where the objects have no masks."""
    unmasked = getattr(dataset.source, "unmasked", None)
    if unmasked:
        raise UsageError(
            f"{unmasked} annotations of {dataset.name} ({dataset.split}) have no segmentation; "
            "take a detector of boxes: --model=fasterrcnn_resnet10_fpn"
        )
    if unmasked is None and "instance_mask" not in dataset.source[0]:
        raise UsageError(
            f"{dataset.name} has no instance masks; take --model=fasterrcnn_resnet10_fpn"
        )


# Objects that an image has room for where nobody says how many there are.
USUAL_ROOM = 5


def room_for(dataset: Dataset, wanted: int | None, usual: int = USUAL_ROOM) -> int:
    """Return the room for objects that a training set's images are given.

    Args:
      wanted: None: as many as the fullest image has where the data set tells, else the usual.

    Raises:
      UsageError: an image is known to have more than wanted.
    """
    most = getattr(dataset.source, "most_objects", None)
    if wanted is None:
        return usual if most is None else max(most, 1)
    if most is not None and most > wanted:
        raise UsageError(
            f"an image of {dataset.name} ({dataset.split}) has {most} objects; give "
            f"--max_objects={most}, or leave it out"
        )
    return wanted


def read(dataset: Dataset, max_objects: int | None, canvas: int, index: int) -> Batch:
    """Return one example, scaled to fit the canvas.

    Args:
      max_objects: the room m for objects; None: without them.

    Returns:
      image: uint8 [canvas, canvas, 3], black beside the image.  size: int32 [2], its height and
      width there.  original_size: int32 [2], those of the file.  boxes: float32 [m, 4] as
      (x1, y1, x2, y2) in pixels.  labels: int32 [m], from 1 on.  valid: bool [m], the objects that
      are there.  difficult: bool [m], those that no evaluation counts.  instances: uint8
      [canvas, canvas, m / 8 rounded up], whose bit i (the lowest first) is set where object i is
      visible; of data sets with masks.

    Raises:
      UsageError: more objects than there is room for, or a mask of another size than the image.
    """
    example = dataset.source[index]
    image = _decode(dataset, example, index)
    placement = geometry.fitted(image.size, canvas)
    width, height = placement.size
    pixels = geometry.placed(image, placement, Image.Resampling.BILINEAR, (0, 0, 0))
    found = {
        "image": np.asarray(pixels),
        "size": np.array([height, width], np.int32),
        "original_size": np.array(image.size[::-1], np.int32),
    }
    if max_objects is None:
        return found
    objects = example["objects"]
    boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4)
    if len(boxes) > max_objects:
        raise UsageError(
            f"{_place(dataset, index)} has {len(boxes)} objects, there is room for {max_objects}; "
            f"give --max_objects={len(boxes)} at least"
        )

    def padded(values: Any, dtype: type) -> np.ndarray:
        values = np.asarray(values, dtype)
        out = np.zeros((max_objects, *values.shape[1:]), dtype)
        out[: len(values)] = values
        return out

    # TFDS has (y1, x1, y2, x2) as shares of the image
    boxes = geometry.placed_boxes(boxes[:, [1, 0, 3, 2]], image.size, placement)
    found["boxes"] = padded(boxes, np.float32)
    found["labels"] = padded(np.asarray(objects["label"]) + 1, np.int32)
    found["valid"] = padded(np.ones(len(boxes)), bool)
    found["difficult"] = padded(_difficult(objects), bool)
    masks = _masks(example, image.size, _place(dataset, index))
    if masks is not None:
        seen = np.zeros((max_objects, canvas, canvas), bool)
        for i, mask in enumerate(masks):
            on_canvas = geometry.placed(
                Image.fromarray(mask), placement, Image.Resampling.NEAREST, [0]
            )
            seen[i] = np.asarray(on_canvas)
        found["instances"] = np.packbits(np.moveaxis(seen, 0, -1), axis=-1, bitorder="little")
    return found


def true_objects(dataset: Dataset, index: int) -> Objects:
    """Return an example's objects in the pixels of its file, all of them, whatever the canvas."""
    example = dataset.source[index]
    objects = example["objects"]
    width, height = _decode(dataset, example, index).size
    boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    boxes = boxes * [width, height, width, height]
    encoded = objects.get("segmentation")
    if encoded is None:
        masks = _masks(example, (width, height), _place(dataset, index))
        if masks is not None:
            encoded = [run_lengths.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    if "area" in objects:
        areas = np.asarray(objects["area"], np.float64)
    elif encoded:
        areas = run_lengths.area(encoded).astype(np.float64)
    else:
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return Objects(
        boxes,
        np.asarray(objects["label"], np.int64).reshape(-1) + 1,
        _difficult(objects),
        areas,
        None if encoded is None else array_of(encoded),
    )


def array_of(encoded: Sequence[dict]) -> np.ndarray:
    """Return run-length encodings as an array, which can be indexed by a mask."""
    out = np.empty(len(encoded), object)
    out[:] = encoded
    return out


def _place(dataset: Dataset, index: int) -> str:
    return f"example {index} of {dataset.name} ({dataset.split})"


def _decode(dataset: Dataset, example: Batch, index: int) -> Image.Image:
    """The example's image, which is as large as its annotations say."""
    place = example.get("filename", _place(dataset, index))
    image = decoded(dataset, example, index, 3)
    if image.size != example.get("size", image.size):
        raise UsageError(
            f"{place}: an image of {image.width}x{image.height} does not fit annotations of "
            f"{example['size'][0]}x{example['size'][1]} pixels; mend one of them (an orientation "
            "tag of the image is obeyed)"
        )
    return image


def _difficult(objects: Batch) -> Bool[np.ndarray, " m"]:
    none = np.zeros(len(objects["label"]), bool)
    return np.asarray(objects.get("is_difficult", objects.get("is_crowd", none)), bool)


def _masks(example: Batch, size: tuple[int, int], place: str) -> Bool[np.ndarray, "m h w"] | None:
    """The objects' masks in an image of this width and height; None where there are none."""
    objects = example["objects"]
    if "segmentation" in objects:
        masks = [run_lengths.decode(one) for one in objects["segmentation"]]
        return np.array(masks, bool).reshape(-1, *size[::-1])
    if "instance_mask" not in example:
        return None
    with Image.open(io.BytesIO(example["instance_mask"])) as mask:
        if mask.size != size:
            raise UsageError(
                f"{place}: a mask of {mask.width}x{mask.height} does not fit an image of "
                f"{size[0]}x{size[1]}; mend one of them"
            )
        values = np.asarray(mask)
    return values == np.asarray(objects["instance"], int)[:, None, None]


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
            moved = geometry.mirrored_boxes(example[name], width)
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
    num_threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Shuffled batches without end: those of `read`, each of its arrays with a leading axis.

    Args:
      batch_size: examples in a global batch, of which each process yields its share, as
        data.pipeline says.
      flips: mirror half of the examples.
      proposals: of each example, which then carries max_proposals of them, see with_proposals.
      start_step: the number of the first batch; earlier ones are skipped without being read.
      num_threads: as in pipeline.train_batches.
    """
    local_size = local_batch_size(dataset, batch_size, process_index, process_count)
    reader = partial(read, dataset, max_objects, canvas)
    if len(dataset.source) * canvas**2 * 4 <= CACHE_BYTES:
        reader = cache(reader)
    reader = readable(dataset, reader)

    def example(index: int, rng: np.random.Generator) -> Batch:
        found = reader(index)
        if proposals is not None:
            found = with_proposals(found, proposals[index], max_proposals)
        return flip(found) if flips and rng.random() < 0.5 else found

    count = len(dataset.source)
    order = grain.MapDataset.range(count).seed(seed).shuffle().repeat(epochs_without_end(count))
    batches = share_of_batches(
        order.random_map(example), local_size, process_index, process_count, seed
    )
    return iterate(batches[start_step:], num_threads)


def evaluation_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    canvas: int,
    max_objects: int | None,
    proposals: Sequence[Float[np.ndarray, "_p 4"]] | None = None,
    max_proposals: int = 0,
) -> Iterator[Batch]:
    """Every example once, in order; "weight" (float32 [b]) is 0 for what fills the last batch.

    Args:
      max_objects: None: without the objects, of which there may then be any number.
    """
    count = len(dataset.source)

    def example(number: int) -> Batch:
        index, weight = min(number, count - 1), number < count
        try:
            found = read(dataset, max_objects, canvas, index)
        except UnreadableImage as error:
            pass_over(dataset, error)
            found, weight = readable(dataset, partial(read, dataset, max_objects, canvas))(0), False
        if proposals is not None:
            found = with_proposals(found, proposals[index], max_proposals)
        return found | {"weight": np.float32(weight)}

    for start in range(0, count, batch_size):
        examples = [example(number) for number in range(start, start + batch_size)]
        yield {name: np.stack([each[name] for each in examples]) for name in examples[0]}
