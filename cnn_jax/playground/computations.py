"""What the served playground computes, as functions that show frames while they work.

Each takes a subject, the options that a reader chose and `show`, and returns the last frame. No
HTTP in here: `show` decides which frames are seen, and raises to end the work.
"""

import collections
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, UInt8
from PIL import Image

from cnn_jax import trained
from cnn_jax.attacks import checks, loop, registry
from cnn_jax.data import decoding, photographs, pipeline, preprocessing
from cnn_jax.data.classes import class_number
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError, unknown
from cnn_jax.playground.worker import Frame, Show
from cnn_jax.reports.explanation_figures import colour, heat
from cnn_jax.trained import Trained
from cnn_jax.visualize import ascent, dream, inversion, methods
from cnn_jax.visualize.mosaic import mosaic

TOP = 5  # classes that are told
MOST_UPLOADS = 32  # of one network that are kept; an older one has to be sent again
MOST_STEPS = 2000
TILES = 64  # channels of a layer that are shown
SMALLEST_OCTAVE = 32  # pixels
DEFAULT_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
LARGEST_EPS = {"linf": 64 / 255, "l2": 20.0, "l1": 480.0}
# Published lengths take hours on a large network; a reader asks for more where these fall short.
STEPS = {"pgd": 20, "apgd": 40, "apgd_dlr": 40, "apgd_targeted": 20, "square": 500}
STEPS |= {"deepfool": 50, "ddn": 50, "carlini_wagner": 100, "fab": 20}
ONE_RUN = ("pgd", "apgd", "apgd_dlr", "square", "deepfool", "ddn")  # the others begin anew
FURTHER = {"carlini_wagner": {"searches": 3}, "fab": {"most_targets": 3}}


class Picture(NamedTuple):
    """A picture of a frame, what stands under it, and what it shows for those who do not see it."""

    title: str
    alt: str
    pixels: UInt8[np.ndarray, "h w 3"]


class Photograph(NamedTuple):
    """An image as the network takes it: pixels in 0..1."""

    name: str
    pixels: Float[np.ndarray, "h w c"]


class Subject:
    """A network, and the photographs that it is shown, by an identifier each.

    Args:
      samples: those that are always there.
    """

    def __init__(self, network: Trained, samples: Iterable[Photograph]):
        self.network, self.f = network, trained.classifier(network)
        names = network.class_names
        self.class_names = names + tuple(map(str, range(len(names), network.model.num_classes)))
        size = network.preprocessing.image_size
        self.shape = (size, size, len(network.mean))
        self.layers = trained.layer_shapes(network, self.shape)
        self.samples = {f"sample{i}": each for i, each in enumerate(samples)}
        self._uploads: collections.OrderedDict[str, Photograph] = collections.OrderedDict()

    def add(self, name: str, image: Image.Image) -> str:
        """Keep an uploaded image in memory, and return its identifier."""
        identifier = secrets.token_hex(8)
        self._uploads[identifier] = photograph(self.network, name, image)
        while len(self._uploads) > MOST_UPLOADS:
            self._uploads.popitem(last=False)
        return identifier

    def photograph(self, identifier: str) -> Photograph:
        """Return the photograph of this identifier.

        Raises:
          UsageError: there is none, any more.
        """
        found = self.samples.get(identifier) or self._uploads.get(identifier)
        if found is None:
            raise UsageError("this photograph is not kept any more; choose its file again")
        return found


def photograph(network: Trained, name: str, image: Image.Image) -> Photograph:
    """Return an image as the network takes it, resized and cropped as for evaluation."""
    image = preprocessing.preprocess(image, network.preprocessing)
    return Photograph(name, preprocessing.to_array(image).astype(np.float32) / 255)


def photographs_of(network: Trained, files: Iterable[str | Path]) -> list[Photograph]:
    """Return image files as the network takes them.

    Raises:
      UsageError: a file that cannot be read.
    """
    channels = len(network.mean)
    return [photograph(network, Path(f).name, decoding.read(f, channels)) for f in files]


def examples(network: Trained, dataset: Dataset, count: int) -> list[Photograph]:
    """Return the first examples of a data set as the network takes them."""
    count = min(count, len(dataset.source))
    batch = next(
        pipeline.evaluation_batches(
            dataset, batch_size=count, preprocessing=network.preprocessing, num_threads=0
        )
    )
    names = [f"{dataset.class_names[label]}, example {i}" for i, label in enumerate(batch["label"])]
    pixels = batch["image"].astype(np.float32) / 255
    return [Photograph(*each) for each in zip(names, pixels, strict=True)]


def classify(subject: Subject, options: Mapping[str, Any], show: Show) -> Frame:
    """Say what is on a photograph."""
    shown, images = _images(subject, options)
    found = _classes(subject, images[0])
    return Frame(
        classes=found,
        pictures=(picture("What the network sees", f"the photograph {shown.name}", images[0]),),
        text=f"{found[0]['name']}, {found[0]['probability']:.1%}",
    )


def explain(subject: Subject, options: Mapping[str, Any], show: Show) -> Frame:
    """Show what the answer for a class depends on, by any of the methods."""
    _, images = _images(subject, options)
    name = _text(options, "method", "saliency")
    method = methods.named(name)
    found = _classes(subject, images[0])
    target = _class(subject, options, found[0]["index"])
    layer = _text(options, "layer", "") or None
    if layer is not None:
        _check_layer(subject, layer, spatial=True)
    seen, of = colour(images[0]), subject.class_names[target]
    signs = " (red) and against it (blue)" if method.signed else ""
    so_far = None

    def frame(map_: Float[Array, "h w"] | None, **place: int) -> Frame:
        if map_ is None:
            return Frame(**place, classes=found, text=f"{method.title} is at work")
        coloured = heat(np.asarray(map_), method.signed)
        # the photograph in grey below the colours
        over = 0.45 * seen.mean(axis=-1, keepdims=True) + 0.55 * coloured
        return Frame(
            **place,
            classes=found,
            pictures=(
                picture(method.title, f"map of {method.title} for {of}", coloured),
                picture(
                    "One over the other", f"the map of {method.title} over the photograph", over
                ),
            ),
            text=f"{method.title}: what speaks for {of}{signs}",
        )

    def progress(items: Iterable, total: int) -> Iterator:
        for i, item in enumerate(items):
            show(partial(frame, so_far, step=i, steps=total))
            yield item

    def watch(maps: Float[Array, "n h w"]) -> None:
        nonlocal so_far
        so_far = maps[0]

    settings = methods.Settings(
        jax.random.key(integer(options, "seed", 0, 0, 2**31 - 1)),
        layer=layer,
        steps=integer(options, "steps", 50, 1, MOST_STEPS),
        samples=integer(options, "steps", 50, 1, MOST_STEPS),
        masks=integer(options, "steps", 1000, 1, MOST_STEPS),
        batch_size=16,
        progress=progress,
        watch=watch,
    )
    return frame(method.explain(subject.f, images, np.array([target]), settings)[0])


def activations(subject: Subject, options: Mapping[str, Any], show: Show) -> Frame:
    """Show a layer's channels as tiles, the liveliest first."""
    shown, images = _images(subject, options)
    layer = _layer(subject, options)
    values = np.asarray(_activation(trained.layer(subject.network, layer), images))[0]
    if values.ndim == 1:
        values = values[None, None]
    order = np.argsort(-values.std(axis=(0, 1)) - 1e-6 * values.mean(axis=(0, 1)), kind="stable")
    chosen = values[..., order[:TILES]]
    if values.shape[:2] == (1, 1):  # a vector: all of it, as a square of numbers
        side = math.ceil(math.sqrt(values.size))
        square = np.zeros(side * side, np.float32)
        square[: values.size] = values.ravel()
        whole = heat(square.reshape(side, side))
        what = f"all {values.size} numbers, row by row"
    else:
        tiles = [heat(chosen[..., i]) for i in range(chosen.shape[-1])]
        whole = mosaic(tiles, math.ceil(math.sqrt(len(tiles))), background=0.5)
        what = f"{len(tiles)} of its {values.shape[-1]} channels, those that vary most first"
    whole = _enlarged(photographs.to_bytes(whole), 512)
    return Frame(
        pictures=(
            Picture(layer, f"activations of {layer} on {shown.name}: {what}", whole),
            picture("Photograph", f"the photograph {shown.name}", images[0]),
        ),
        text=f"{layer}, {'x'.join(map(str, subject.layers[layer]))}: {what}",
    )


def attack(subject: Subject, options: Mapping[str, Any], show: Show) -> Frame:
    """Change a photograph so that the network takes it for something else, step by step."""
    _, images = _images(subject, options)
    name = _text(options, "attack", "pgd")
    chosen = registry.find(name)
    norm = _text(options, "norm", "") or chosen.norms[0]
    if norm not in chosen.norms:
        raise UsageError(f"{name} knows {' and '.join(chosen.norms)}, not {norm}")
    before = _classes(subject, images[0])
    label, goal = before[0]["index"], _text(options, "target", "")
    settings: dict[str, Any] = {"norm": norm, **FURTHER.get(name, {})}
    if chosen.bounded:
        settings["eps"] = _number(options, "eps", DEFAULT_EPS[norm], 0.0, LARGEST_EPS[norm])
        checks.check_eps(settings["eps"], norm, images[0].size)
    if goal:
        if not chosen.targeted:
            able = ", ".join(each for each, row in registry.ATTACKS.items() if row.targeted)
            raise UsageError(f"{name} has no target; leave the class empty, or take {able}")
        settings["targets"] = np.array([_class(subject, options, label)])
    asked = name in STEPS or options.get("steps") is not None
    if asked and name not in ("fgsm", "autoattack"):
        settings["steps"] = integer(options, "steps", STEPS.get(name, 0), 1, MOST_STEPS)
    made = 0

    def frame(changed: Float[np.ndarray, "h w c"]) -> Frame:
        found = _probabilities(subject, changed)
        difference = changed - images[0]
        largest = np.abs(difference).max()
        against = {f"{subject.class_names[label]}": float(found[label])}
        if goal:
            wanted = int(settings["targets"][0])
            against[subject.class_names[wanted]] = float(found[wanted])
        best = _ranked(subject, found)
        sizes = f"largest change {255 * largest:.2f}/255, l2 {np.linalg.norm(difference):.3f}"
        return Frame(
            step=made,
            steps=max(made, settings["steps"]) if name in ONE_RUN else None,
            numbers=against,
            classes=best,
            pictures=(
                picture(
                    "What is added, enlarged",
                    "the perturbation, grey where nothing is changed",
                    0.5 + difference / (2 * largest or 1),
                ),
                picture("Attacked", f"the attacked photograph, seen as {best[0]['name']}", changed),
            ),
            text=f"{before[0]['name']} is seen as {best[0]['name']}; {sizes}",
        )

    def watch(examples, changed) -> None:
        nonlocal made
        del examples
        made += 1
        show(lambda: frame(np.array(changed[0])))

    found = chosen.function(
        subject.f,
        images,
        np.array([label]),
        jax.random.key(integer(options, "seed", 0, 0, 2**31 - 1)),
        batching=loop.Batching(1, watch=watch),
        **settings,
    )
    return frame(np.asarray(found)[0])


def _shown(show: Show, frame: Callable[..., Frame]) -> Callable[..., None]:
    """Return a watch that shows the frame of each state."""
    return lambda *state: show(partial(frame, *state))


def ascend(subject: Subject, options: Mapping[str, Any], show: Show) -> Frame:
    """Show the image that a class, or a channel of a layer, likes best, as it comes about."""
    layer = _text(options, "layer", "")
    if layer:
        _check_layer(subject, layer)
        f, width = trained.layer(subject.network, layer), subject.layers[layer][-1]
        index = integer(options, "channel", 0, 0, width - 1)
        liked = f"channel {index} of {layer}"
    else:
        f, index = subject.f, _class(subject, options, 0)
        liked = subject.class_names[index]
    steps = integer(options, "steps", 128, 1, MOST_STEPS)
    way = _text(options, "way", "spectrum")
    frame = _image_frame(
        subject,
        liked,
        steps,
        "what is maximised",
        f"For {liked}",
        f"the image that excites {liked}",
    )

    shape, objective = (1, *subject.shape), ascent.channel([index])
    if way == "spectrum":
        key = jax.random.key(integer(options, "seed", 0, 0, 2**31 - 1))
        found = ascent.lucid(f, objective, shape, key, steps=steps, watch=_shown(show, frame))
    elif way == "zeros":
        found = ascent.simonyan(f, objective, shape, steps=steps, watch=_shown(show, frame))
    else:
        raise unknown("way", way, ("spectrum", "zeros"))
    return frame(steps, found.images, found.score)


def invert(subject: Subject, options: Mapping[str, Any], show: Show) -> Frame:
    """Show what a layer keeps of a photograph: an image with the same activations, from noise."""
    shown, images = _images(subject, options)
    layer = _layer(subject, options)
    steps = integer(options, "steps", 150, 1, MOST_STEPS)
    f = trained.layer(subject.network, layer)
    depth = list(subject.layers).index(layer) / max(len(subject.layers) - 1, 1)
    # as much of it as inversion.invert_layers gives the layers of a whole network
    regularizer = inversion.natural_image(3e-3, float(1e-4 * 1e3**depth))

    frame = _image_frame(
        subject,
        layer,
        steps,
        "error and penalty",
        f"From {layer}",
        f"what {layer} keeps of {shown.name}",
    )

    key = jax.random.key(integer(options, "seed", 0, 0, 2**31 - 1))
    found = inversion.invert(
        f,
        _activation(f, images),
        inversion.noise(key, images.shape).astype(images.dtype),
        regularizer=regularizer,
        steps=steps,
        watch=_shown(show, frame),
    )
    last = frame(steps, found.images, found.history.min(0))
    return last._replace(text=f"{layer}: normalised error {float(found.error[0]):.3g}")


def dreams(subject: Subject, options: Mapping[str, Any], show: Show) -> Frame:
    """Change a photograph so that a layer sees more of what it sees in it, octave by octave."""
    shown, images = _images(subject, options)
    layer = _layer(subject, options, spatial=True)
    most = 1 + max(int(math.log(min(images.shape[1:3]) / SMALLEST_OCTAVE, 1.4)), 0)
    octaves = min(integer(options, "octaves", 4, 1, 8), most)
    iterations = integer(options, "steps", 10, 1, MOST_STEPS)
    size = images.shape[1:3]

    def frame(made: int, image: np.ndarray) -> Frame:
        return Frame(
            step=made,
            steps=octaves * iterations,
            pictures=(picture(f"Dream of {layer}", f"{shown.name} as {layer} dreams it", image),),
            text=f"{layer}, {'x'.join(map(str, image.shape[:2]))} of {size[0]}x{size[1]} pixels",
        )

    found = dream.dream(
        trained.layers(subject.network, [layer]),
        images,
        jax.random.key(integer(options, "seed", 0, 0, 2**31 - 1)),
        octaves=octaves,
        iterations=iterations,
        watch=lambda made, image: show(lambda: frame(made, np.asarray(image[0]))),
    )
    last = frame(octaves * iterations, np.asarray(found[0]))
    return last._replace(classes=_classes(subject, np.asarray(found[0])))


TASKS: dict[str, Callable[[Subject, Mapping[str, Any], Show], Frame]] = {
    "classify": classify,
    "explain": explain,
    "activations": activations,
    "attack": attack,
    "ascent": ascend,
    "inversion": invert,
    "dream": dreams,
}


def task(name: Any) -> Callable[[Subject, Mapping[str, Any], Show], Frame]:
    """Return the task of this name.

    Raises:
      UsageError: there is none.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise unknown("task", str(name), TASKS)
    return TASKS[name]


def described(subject: Subject) -> dict[str, Any]:
    """Return what a page needs to offer the tasks of a subject, in JSON's types."""
    return {
        "model": subject.network.model.name,
        "source": {
            key: value
            for key, value in subject.network.source.items()
            if key in ("workdir", "weights", "step")
        },
        "classes": list(subject.class_names),
        "image": list(subject.shape),
        "layers": [{"path": path, "shape": list(of)} for path, of in subject.layers.items()],
        "methods": [{"name": name, "title": row.title} for name, row in methods.METHODS.items()],
        "attacks": [
            {
                "name": name,
                "norms": list(row.norms),
                "bounded": row.bounded,
                "targeted": row.targeted,
            }
            for name, row in registry.ATTACKS.items()
        ],
        "eps": {n: {"usual": DEFAULT_EPS[n], "most": LARGEST_EPS[n]} for n in DEFAULT_EPS},
    }


# --- what a reader chose ----------------------------------------------------------------------


def _images(subject, options) -> tuple[Photograph, Float[np.ndarray, "1 h w c"]]:
    found = subject.photograph(_text(options, "photograph", ""))
    return found, found.pixels[None]


def _text(options: Mapping[str, Any], name: str, default: str) -> str:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > 200:
        raise UsageError(f"{name} is no short text")
    return value.strip()


def _number(options, name: str, default: float, low: float, high: float) -> float:
    value = options.get(name)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{name} is {str(value)[:40]!r}; give a number from {low:g} to {high:g}")
    return float(value)


def integer(options: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """Return the whole number that was chosen.

    Raises:
      UsageError: it is none, or not within the bounds.
    """
    value = _number(options, name, default, low, high)
    if value != int(value):
        raise UsageError(f"{name} is {value:g}; give a whole number from {low} to {high}")
    return int(value)


def _class(subject: Subject, options, default: int) -> int:
    text = _text(options, "target", "")
    return class_number(text, subject.class_names) if text else default


def _layer(subject: Subject, options, spatial: bool = False) -> str:
    layer = _text(options, "layer", "")
    if not layer:  # half way up
        paths = [path for path, shape in subject.layers.items() if len(shape) == 3]
        return paths[len(paths) // 2]
    _check_layer(subject, layer, spatial)
    return layer


def _check_layer(subject: Subject, layer: str, spatial: bool = False) -> None:
    if layer not in subject.layers:
        raise unknown("layer", layer, subject.layers)
    if spatial and len(subject.layers[layer]) != 3:
        raise UsageError(
            f"{layer} has no rows and columns; take a convolution, a pooling or a block"
        )


# --- parts of a frame -------------------------------------------------------------------------


@jax.jit
def _softmax(f: Partial, images):
    return jax.nn.softmax(f(images))


@jax.jit
def _activation(f: Partial, images):
    return f(images)


def _probabilities(subject: Subject, image) -> Float[np.ndarray, " classes"]:
    return np.asarray(_softmax(subject.f, image[None]))[0]


def _classes(subject: Subject, image) -> list[dict[str, Any]]:
    return _ranked(subject, _probabilities(subject, image))


def _ranked(subject: Subject, probabilities) -> list[dict[str, Any]]:
    return [
        {"name": subject.class_names[i], "index": int(i), "probability": float(probabilities[i])}
        for i in np.argsort(-probabilities, kind="stable")[:TOP]
    ]


def _image_frame(
    subject: Subject, of: str, steps: int, number: str, title: str, alt: str
) -> Callable[[int, Float[Array, "1 h w c"], Float[Array, "1"]], Frame]:
    """Return f(step, images, values) -> the frame of an image that is being made.

    Args:
      of: what it is made for.  number: what the values are.  title, alt: of the picture.
    """

    def frame(step: int, images: Array, values: Array) -> Frame:
        image, value = np.asarray(images[0]), float(values[0])
        return Frame(
            step=step,
            steps=steps,
            numbers={number: value},
            classes=_classes(subject, image.astype(np.float32)),
            pictures=(picture(title, alt, image),),
            text=f"{of}: {value:.3g} after {step} steps",
        )

    return frame


def picture(title: str, alt: str, image: Float[np.ndarray, "h w c"]) -> Picture:
    """Return an image in 0..1 as a picture, a small one enlarged unsmoothed."""
    return Picture(title, alt, _enlarged(photographs.to_bytes(colour(image)), 128))


def _enlarged(pixels: UInt8[np.ndarray, "h w 3"], least: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return small pictures with each pixel as a square, so that they are seen unsmoothed."""
    times = max(math.ceil(least / max(pixels.shape[:2])), 1)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)
