"""What a network says of photographs of any size: classes, boxes, masks, by the task it is for.

All places are told in the pixels of the photograph as it was given.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from PIL import Image

from cnn_jax import object_detection, trained
from cnn_jax.data import geometry
from cnn_jax.data.preprocessing import (
    RESAMPLING,
    preprocess,
    resize_shorter_side,
    to_array,
)
from cnn_jax.errors import UsageError
from cnn_jax.tasks import localization
from cnn_jax.trained import Trained


class Answer(NamedTuple):
    """What a network says of one photograph.

    found: the likeliest first, each with "name" and "index" of a class, and "probability" (of a
      class), "score" (of an object) or "share" (of the pixels); of objects "box" too, as
      [x1, y1, x2, y2].
    masks: where each of the found is; None where the network has none.
    regions: the class of every pixel, of a network for segmentation.
    seen: what the network saw, where that is not the whole photograph.
    """

    found: list[dict[str, Any]]
    masks: Bool[np.ndarray, "k h w"] | None = None
    regions: Int[np.ndarray, "h w"] | None = None
    seen: Image.Image | None = None


Ask = Callable[[Sequence[Image.Image]], list[Answer]]

MEASURES = {
    "classification": "probability",
    "localization": "probability",
    "detection": "score",
    "segmentation": "share",
}


def class_names(network: Trained) -> tuple[str, ...]:
    """Return a name for each of the network's outputs: a number where nobody names it."""
    names = network.class_names
    return names + tuple(map(str, range(len(names), network.model.num_classes)))


def asker(
    network: Trained,
    *,
    top: int | None = None,
    least: float | None = None,
    batch_size: int | None = None,
) -> Ask:
    """Return ask(photographs) -> an Answer for each.

    Photographs have the network's number of channels and any size.

    Args:
      top: how much is told of each at most; by default five classes, all objects and regions.
      least: what is less likely, or a smaller share, is left out; by default only objects of a
        score below .5 are.
      batch_size: photographs at a time, filled up to it so that one program serves all; by default
        as many as a call is given, and a program for each number of them.

    Raises:
      UsageError: a network for another task than those of MEASURES, or a detector that needs
        proposals.
    """
    task = network.model.task
    if task not in MEASURES:
        raise UsageError(
            f"{network.model.name} is a network for {task}, of which photographs cannot be asked; "
            f"take one for {', '.join(MEASURES)}"
        )
    if top is None and MEASURES[task] == "probability":
        top = 5
    if least is None:
        least = 0.5 if task == "detection" else 0.0
    ask = _ASKERS[task](network, class_names(network), top, batch_size)

    def told(answer: Answer) -> Answer:
        keep = [i for i, each in enumerate(answer.found) if each[MEASURES[task]] >= least][:top]
        masks = None if answer.masks is None else answer.masks[keep]
        return answer._replace(found=[answer.found[i] for i in keep], masks=masks)

    return lambda photographs: [told(answer) for answer in ask(photographs)]


def _classes(
    network: Trained, names: Sequence[str], top: int | None, batch_size: int | None
) -> Ask:
    """The classes and their probabilities, of the central crop that evaluation takes."""
    run = _in_batches(jax.jit(lambda f, pixels: jax.nn.softmax(f(pixels))), network, batch_size)

    def ask(photographs: Sequence[Image.Image]) -> list[Answer]:
        seen = [preprocess(photograph, network.preprocessing) for photograph in photographs]
        answers = []
        for image, row in zip(seen, run(seen), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            found = [_found(names, i, "probability", row[i]) for i in best]
            answers.append(Answer(found, seen=image))
        return answers

    return ask


def _located(
    network: Trained, names: Sequence[str], top: int | None, batch_size: int | None
) -> Ask:
    """The classes, their probabilities and boxes, of the whole photograph."""

    @jax.jit
    def locate(f: Callable, pixels: Float[Array, "n h w c"]):
        outputs = f(pixels)
        order, boxes = localization.guesses(outputs, top or len(names))
        odds = jnp.take_along_axis(jax.nn.softmax(outputs["logits"]), order, axis=1)
        return order, odds, boxes

    run, side = _in_batches(locate, network, batch_size), network.preprocessing.image_size

    def ask(photographs: Sequence[Image.Image]) -> list[Answer]:
        placements = [geometry.fitted(each.size, side) for each in photographs]
        pairs = zip(photographs, placements, strict=True)
        canvases = [_canvas(*each, network, black=True) for each in pairs]
        answers = []
        for photograph, placement, order, odds, boxes in zip(
            photographs, placements, *run(canvases), strict=True
        ):
            size = np.array(photograph.size)
            boxes = boxes * side * np.tile(size / placement.size, 2)
            boxes = np.clip(boxes, 0, np.tile(size, 2))
            answers.append(
                Answer(
                    [
                        _found(names, i, "probability", p, box)
                        for i, p, box in zip(order, odds, boxes, strict=True)
                    ]
                )
            )
        return answers

    return ask


def _objects(
    network: Trained, names: Sequence[str], top: int | None, batch_size: int | None
) -> Ask:
    """The objects, their scores and boxes, and of a network with a mask head their masks."""
    del top, batch_size  # each photograph lies on the canvas that it fits
    detect = object_detection.detector(network)

    def ask(photographs: Sequence[Image.Image]) -> list[Answer]:
        return [
            Answer(
                [
                    _found(names, label, "score", score, box)
                    for label, score, box in zip(
                        found.labels, found.scores, found.boxes, strict=True
                    )
                ],
                masks=found.masks,
            )
            for found in detect([to_array(photograph) for photograph in photographs])
        ]

    return ask


def _regions(
    network: Trained, names: Sequence[str], top: int | None, batch_size: int | None
) -> Ask:
    """The class of every pixel, and each class's share of them.

    A run's network sees photographs as its evaluation does, fitted into a square; a published one
    of torchvision as torchvision's, whose shorter side has a fixed length.
    """
    del top  # regions are few
    segment = jax.jit(lambda f, pixels: f(pixels).argmax(axis=-1))
    whole = network.config is None and network.preprocessing.resize is not None
    run = _in_batches(segment, network, 1 if whole else batch_size)

    def ask(photographs: Sequence[Image.Image]) -> list[Answer]:
        if whole:
            resample = RESAMPLING[network.preprocessing.interpolation]
            resize = partial(resize_shorter_side, size=network.preprocessing.resize)
            masks = [run([resize(each, resample=resample)])[0] for each in photographs]
        else:
            side = network.preprocessing.image_size
            placements = [geometry.fitted(each.size, side) for each in photographs]
            pairs = list(zip(photographs, placements, strict=True))
            masks = run([_canvas(*each, network) for each in pairs])
            masks = [
                mask[: place.size[1], : place.size[0]]
                for mask, place in zip(masks, placements, strict=True)
            ]
        answers = []
        for photograph, mask in zip(photographs, masks, strict=True):
            # the nearest pixel's, which mixes no classes
            mask = Image.fromarray(mask.astype(np.int32))
            mask = np.asarray(mask.resize(photograph.size, Image.Resampling.NEAREST))
            shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            order = [i for i in np.argsort(-shares, kind="stable") if shares[i]]
            answers.append(
                Answer([_found(names, i, "share", shares[i]) for i in order], regions=mask)
            )
        return answers

    return ask


_ASKERS: Mapping[str, Callable[[Trained, Sequence[str], int | None, int | None], Ask]] = {
    "classification": _classes,
    "localization": _located,
    "detection": _objects,
    "segmentation": _regions,
}


def _found(
    names: Sequence[str], index: int, measure: str, value: float, box: np.ndarray | None = None
) -> dict[str, Any]:
    found = {"name": names[index], "index": int(index), measure: float(value)}
    return found if box is None else found | {"box": [round(float(side), 2) for side in box]}


def _canvas(
    photograph: Image.Image, placement: geometry.Placement, network: Trained, black: bool = False
) -> Image.Image:
    """The photograph on its square; beside it black, or the colour that normalises to zero."""
    mean = np.rint(255 * np.asarray(network.mean) * (not black)).astype(int)
    resample = RESAMPLING[network.preprocessing.interpolation]
    return geometry.placed(photograph, placement, resample, mean.tolist())


def _in_batches(program: Callable, network: Trained, batch_size: int | None) -> Callable:
    """Return run(images) -> the program's outputs on the host, by batches that are filled up."""
    f = trained.classifier(network)

    def run(images: Sequence[Image.Image]) -> Any:
        pixels, size = np.stack([to_array(image) for image in images]), batch_size or len(images)
        pixels = np.pad(pixels, [(0, -len(images) % size), *[(0, 0)] * 3])
        outputs = [
            jax.tree.map(np.asarray, program(f, batch.astype(np.float32) / 255))
            for batch in np.split(pixels, len(pixels) // size)
        ]
        return jax.tree.map(lambda *each: np.concatenate(each)[: len(images)], *outputs)

    return run
