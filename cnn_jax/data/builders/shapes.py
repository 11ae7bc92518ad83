"""Drawn scenes of overlapping shapes as a TFDS data set, for dense tasks; needs no network."""

import io
import math
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

SIZE = 128
CLASSES = ("circle", "square", "triangle", "star", "pentagon", "cross", "ring", "crescent")
EXAMPLES = {"train": 4000, "test": 500}

_MAX_OBJECTS = 5
# The side of the square that has the shape's area, in pixels of a 128x128 image.
_MAIN_SIDE = (24.0, 64.0)
_OTHER_SIDE = (12.0, 40.0)
_MIN_VISIBLE = 0.4  # of a shape's area, the part beyond the image's edge included
_MIN_LEAD = 1.25  # how much more of the main object shows than of any other
_MIN_CONTRAST = 35.0  # root mean square of the difference to the colours below, of 255
_SUPERSAMPLING = 4


class Scene(NamedTuple):
    """A drawn image with its annotation.

    Attributes:
      image: uint8 [h, w, 3].
      instances: uint8 [h, w]; 0 is the ground, i + 1 the visible pixels of object i.
      labels: the class of each object, from the lowest to the topmost.
    """

    image: UInt8[np.ndarray, "h w 3"]
    instances: UInt8[np.ndarray, "h w"]
    labels: tuple[int, ...]


class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One to five textured shapes of eight classes on textured ground, 128x128, drawn by a seed.

    Colour, texture, area, rotation and place are drawn without regard to the class. Shapes cover
    each other in part and reach over the image's edge; at least 40 % of each shows. The image's
    label is the class of the object of which most shows: a quarter more than of any other. `bbox`
    bounds an object's visible pixels; `instance` is their value in `instance_mask`, 0 being the
    ground; `segmentation_mask` holds label + 1.
    """

    name = "shapes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        mask = tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png")
        label = tfds.features.ClassLabel(names=CLASSES)
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="jpeg"),
            "label": label,
            "objects": tfds.features.Sequence(
                {"bbox": tfds.features.BBoxFeature(), "label": label, "instance": np.int64}
            ),
            "segmentation_mask": mask,
            "instance_mask": mask,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in EXAMPLES}

    def _generate_examples(self, split):
        for index in range(EXAMPLES[split]):
            random = np.random.default_rng((list(EXAMPLES).index(split), index))
            yield index, _annotate(draw_scene(random))


def draw_scene(random: np.random.Generator, size: int = SIZE) -> Scene:
    """Draws one scene of `size` x `size` pixels."""
    layout = None
    while layout is None:
        layout = _lay_out(random, size)
    labels, covers = layout
    image = _texture(random, size, random.uniform(30, 225, 3))
    for cover in covers:
        below = image[:, cover > 0].mean(1)
        texture = _texture(random, size, _contrasting_colour(random, below))
        image += cover * (texture - image)
    light = np.linspace(*random.uniform(0.75, 1.15, 2), size, dtype=np.float32)
    image *= light[:, None] if random.random() < 0.5 else light
    image += 6 * random.standard_normal(image.shape, np.float32)
    image = np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Scene(image, _stack(covers), labels)


def draw_shape(random: np.random.Generator, name: str, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draw one light shape of this class on plain dark ground, as small networks like it."""
    ground, colour = random.uniform(20, 90, 3), random.uniform(130, 245, 3)
    cover = _cover(OUTLINES[name], random, size * random.uniform(0.42, 0.62), size, margin=0.36)
    image = ground + cover[..., None] * (colour - ground)
    return np.clip(image.round(), 0, 255).astype(np.uint8)


def _annotate(scene: Scene) -> dict:
    """The scene as TFDS features."""
    objects = [
        {"bbox": _bounding_box(scene.instances == i + 1), "label": label, "instance": i + 1}
        for i, label in enumerate(scene.labels)
    ]
    areas = np.bincount(scene.instances.ravel(), minlength=len(objects) + 1)[1:]
    segmentation = np.array([0, *(label + 1 for label in scene.labels)], np.uint8)[scene.instances]
    return {
        "image": _encode_jpeg(scene.image),
        "label": scene.labels[int(areas.argmax())],
        "objects": objects,
        "segmentation_mask": Image.fromarray(segmentation),
        "instance_mask": Image.fromarray(scene.instances),
    }


def _encode_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="jpeg", quality=92, subsampling=0)
    return file.getvalue()


def _bounding_box(mask: Bool[np.ndarray, "h w"]) -> tfds.features.BBox:
    """The box around the true pixels, edges included, as fractions of the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return tfds.features.BBox(
        ymin=rows[0] / height,
        xmin=columns[0] / width,
        ymax=(rows[-1] + 1) / height,
        xmax=(columns[-1] + 1) / width,
    )


def _lay_out(random: np.random.Generator, size: int):
    """Chooses the objects' labels and covers, from the lowest to the topmost.

    Returns None where too little of an object shows, or the main one does not lead.
    """
    count = int(random.integers(1, _MAX_OBJECTS + 1))
    labels = tuple(int(label) for label in random.integers(len(CLASSES), size=count))
    main = int(random.integers(count))
    sides = random.uniform(*_OTHER_SIDE, size=count)
    sides[main] = random.uniform(*_MAIN_SIDE)
    sides *= size / SIZE
    covers = [
        _cover(OUTLINES[CLASSES[label]], random, side, size)
        for label, side in zip(labels, sides, strict=True)
    ]
    visible = np.bincount(_stack(covers).ravel(), minlength=count + 1)[1:]
    shows = (visible >= _MIN_VISIBLE * sides**2).all()
    leads = visible[main] >= _MIN_LEAD * np.delete(visible, main).max(initial=0)
    return (labels, covers) if shows and leads else None


def _cover(
    outline: Float[np.ndarray, "v 2"],
    random: np.random.Generator,
    side: float,
    size: int,
    margin: float = 0.1,
) -> Float[np.ndarray, "h w"]:
    """How much of each pixel a shape covers, at a random place and rotation: 0..1.

    Its centre keeps the margin, a share of the image's size, from the edges.
    """
    angle = random.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = random.uniform(margin * size, (1 - margin) * size, 2)
    points = centre + side * outline @ rotation.T
    canvas = Image.new("L", (size * _SUPERSAMPLING,) * 2)
    ImageDraw.Draw(canvas).polygon([*(points * _SUPERSAMPLING).ravel()], fill=255)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255


def _stack(covers: list[Float[np.ndarray, "h w"]]) -> UInt8[np.ndarray, "h w"]:
    """The number, from 1, of the topmost object that covers half of a pixel or more; else 0."""
    instances = np.zeros(covers[0].shape, np.uint8)
    for i, cover in enumerate(covers):
        instances[cover >= 0.5] = i + 1
    return instances


def _contrasting_colour(
    random: np.random.Generator, below: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    while True:
        colour = random.uniform(30, 225, 3)
        if np.sqrt(np.mean((colour - below) ** 2)) >= _MIN_CONTRAST:
            return colour


def _texture(
    random: np.random.Generator, size: int, colour: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 h w"]:
    """Noise, stripes or a chequerboard between two shades around a colour."""
    kind = random.integers(3)
    if kind == 0:
        pattern = sum(_smooth_noise(random, cells, size) for cells in (3, 8, 24)) / 2
    else:
        angle, period = random.uniform(0, math.pi), random.uniform(5, 24) * size / SIZE
        x = np.arange(size, dtype=np.float32) * (2 * math.pi / period)
        y = x[:, None] + random.uniform(0, 2 * math.pi)
        pattern = np.sin(math.cos(angle) * x + math.sin(angle) * y)
        if kind == 2:
            pattern = np.sign(pattern * np.sin(math.cos(angle) * y - math.sin(angle) * x))
    contrast = random.normal(0, 22, 3)
    return np.float32(colour)[:, None, None] + pattern * np.float32(contrast)[:, None, None]


def _smooth_noise(random: np.random.Generator, cells: int, size: int) -> Float[np.ndarray, "h w"]:
    noise = Image.fromarray(random.normal(size=(cells, cells)).astype(np.float32))
    return np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))


def _polar(angles: np.ndarray, radii: float | np.ndarray) -> Float[np.ndarray, "v 2"]:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


def _unit_outlines() -> dict[str, Float[np.ndarray, "v 2"]]:
    """Polygons of area 1 around their centroids."""
    around = np.linspace(0, 2 * np.pi, 65)
    arm = np.array([[1, -0.34], [1, 0.34], [0.34, 0.34]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    # The crescent is the unit circle less one of radius .85 at (.55, 0); they meet at these angles.
    outer, inner = 1.0153, 1.5975
    bite = _polar(np.linspace(2 * np.pi - inner, inner, 40), 0.85) + (0.55, 0)
    outlines = {
        "circle": _polar(around, 1),
        "square": _regular(4),
        "triangle": _regular(3),
        "star": _polar(np.pi / 5 * np.arange(10), np.tile([1, 0.45], 5)),
        "pentagon": _regular(5),
        "cross": np.concatenate([arm @ turn.T for turn in turns]),
        "ring": np.concatenate([_polar(around, 1), _polar(around[::-1], 0.55)]),
        "crescent": np.concatenate([_polar(np.linspace(outer, 2 * np.pi - outer, 60), 1), bite]),
    }
    return {name: _normalise(outline) for name, outline in outlines.items()}


def _regular(corners: int) -> Float[np.ndarray, "v 2"]:
    return _polar(2 * np.pi * np.arange(corners) / corners, 1)


def _normalise(outline: Float[np.ndarray, "v 2"]) -> Float[np.ndarray, "v 2"]:
    """Moves the centroid to the origin and scales the area to 1, both by the shoelace formula."""
    following = np.roll(outline, -1, axis=0)
    cross = outline[:, 0] * following[:, 1] - following[:, 0] * outline[:, 1]
    area = cross.sum() / 2
    centroid = ((outline + following) * cross[:, None]).sum(0) / (6 * area)
    return (outline - centroid) / np.sqrt(abs(area))


OUTLINES = _unit_outlines()
