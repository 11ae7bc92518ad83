"""What is exported of a network: functions of arrays alone, of which a size is free."""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.models.faster_rcnn import Settings, first_stage, mask_head, region_head
from cnn_jax.models.rcnn import images_themselves
from cnn_jax.models.registry import Model, find
from cnn_jax.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")
LARGEST = 2**31 - 2**20  # bytes: what protocol and flat buffers hold, with room for the graph

# inputs whose first size is free -> the name of that size
FREE = {"pixels": "batch", "boxes": "regions"}

Outputs = dict[str, Array]
Shape = tuple[int | str, ...]


class Program(NamedTuple):
    """What becomes a file.

    function: f(*arrays) -> outputs by name.
    inputs: the name and the shape of each of these arrays. A first size that is free has a name,
      and the outputs have it too.
    """

    function: Callable[..., Outputs]
    inputs: Mapping[str, Shape]


def outputs(network: Trained) -> Callable[[Float[Array, "n h w c"]], Outputs]:
    """Return f(pixels) -> outputs by name; pixels are floats in 0..1, normalised inside.

    Of a classifier or a segmentation network the output is "logits", of a localizer "logits" and
    "boxes". Of a detector they are the backbone's maps, "map0" and on, and where it proposes
    regions itself the raw heads on each: "objectness0" (logits) [n, anchors] and "deltas0"
    [n, anchors, 4]; how boxes are chosen from these is not part of it, see region_heads for what
    follows. Of R-CNN, which cuts its regions from the image itself, the pixels are warped regions,
    and the output their "logits".
    """
    model, variables = network.model, network.variables

    def run(pixels: Float[Array, "n h w c"]) -> Outputs:
        mean, std = (jnp.asarray(each, pixels.dtype) for each in (network.mean, network.std))
        images = (pixels - mean) / std
        if model.task == "detection":
            return _raw_heads(model, _settings(network), variables, images)
        found = model.apply(variables, images)
        return dict(found) if isinstance(found, Mapping) else {"logits": found}

    return run


def _settings(network: Trained) -> Settings:
    """The detector's settings, which no run changes: flags cannot say them."""
    return find(network.model.name).function.keywords["settings"]


def rules(network: Trained) -> dict[str, Any]:
    """Return a detector's numbers, of which boxes follow from raw heads: see Settings."""
    if network.model.task != "detection":
        return {}
    settings = _settings(network)._asdict()
    return {name: value for name, value in settings.items() if not callable(value)}


def image_size(network: Trained) -> int:
    """Return the side of the pixels that are for this network: its images', or R-CNN's regions'."""
    if network.model.task == "detection":
        settings = _settings(network)
        if settings.backbone is images_themselves:
            return settings.region_size
    return network.preprocessing.image_size


def _as_they_are(
    region: Float[Array, "h w c"], boxes: Float[Array, "1 4"], outputs: int, *, scale: float
) -> Float[Array, "1 h w c"]:
    """What is cut from a region that was cut before."""
    del boxes, outputs, scale
    return region[None]


def _raw_heads(
    model: Model, settings: Settings, variables: Any, images: Float[Array, "n h w c"]
) -> Outputs:
    def heads(scope: flax.core.Scope, images: Array) -> Outputs:
        if settings.backbone is images_themselves:
            cut = settings._replace(region_pool=_as_they_are)
            boxes = jnp.zeros((images.shape[0], 1, 4), images.dtype)
            logits, _ = region_head(scope, [images], boxes, model.num_classes, cut)
            return {"logits": logits[:, 0]}
        if not settings.anchor_sizes:  # regions come from elsewhere
            maps = scope.child(settings.backbone, "backbone")(images)
            return {f"map{i}": x for i, x in enumerate(maps)}
        maps, objectness, deltas, _ = first_stage(scope, images, settings)
        named = {"map": maps, "objectness": objectness, "deltas": deltas}
        return {f"{name}{i}": x for name, each in named.items() for i, x in enumerate(each)}

    return flax.core.apply(heads, flags={"train": False})(variables, images)


def region_heads(network: Trained) -> dict[str, Callable[..., Outputs]]:
    """Return name -> f(*maps, boxes) -> outputs by name, of the heads on regions of one image.

    The maps are those of `head_maps` [1, h, w, c], the boxes (x1, y1, x2, y2) in the image's pixels
    [k, 4]. "box_head" gives "logits" [k, classes], the background first, and for each class
    "deltas" [k, classes, 4]; "mask_head", where there is one, the logits of its "masks"
    [k, m, m, classes]. R-CNN and networks that are no detectors have none.
    """
    if not head_maps(network):
        return {}
    settings = _settings(network)

    def run(head: Callable, names: tuple[str, ...], *arrays: Array) -> Outputs:
        *maps, boxes = arrays
        on_regions = flax.core.apply(head, flags={"train": False})
        found = on_regions(
            network.variables, maps, boxes[None], network.model.num_classes, settings
        )
        found = found if isinstance(found, tuple) else (found,)
        return {name: each[0] for name, each in zip(names, found, strict=True)}

    heads = {"box_head": partial(run, region_head, ("logits", "deltas"))}
    if settings.mask_layers:
        heads["mask_head"] = partial(run, mask_head, ("masks",))
    return heads


def head_maps(network: Trained) -> tuple[str, ...]:
    """Return the names of the maps that regions are cut from; none without heads on regions."""
    if network.model.task != "detection":
        return ()
    settings = _settings(network)
    if settings.backbone is images_themselves:
        return ()
    count = 1 if settings.region_pool is not None else settings.region_maps
    return tuple(f"map{i}" for i in range(count))


def sample_boxes(network: Trained, height: int, width: int) -> Float[np.ndarray, "k 4"]:
    """Return boxes about three places of an image, with which the heads are compared.

    They have a half and a quarter of its size, and that of each of the maps, which may be larger
    than the image: so no map is without an effect.
    """
    settings = _settings(network)
    levels = range(settings.lowest_level, settings.lowest_level + len(head_maps(network)))
    sides = [min(height, width) * share for share in (0.5, 0.25)]
    sides += [1.3 * settings.canonical_size * 2.0 ** (level - 4) for level in levels]
    places = ((0.45, 0.55, 1.0), (0.7, 0.3, 0.75), (0.2, 0.6, 1.4))  # x, y, width / height
    boxes = [
        (x * width, y * height, side * form**0.5 / 2, side / form**0.5 / 2)
        for side, (x, y, form) in itertools.product(sides, places)
    ]
    return np.array([(x - w, y - h, x + w, y + h) for x, y, w, h in boxes], np.float32)


def symbolic(inputs: Mapping[str, Shape]) -> list[jax.ShapeDtypeStruct]:
    """Return the inputs, float32, with a symbol for the one size that is free."""
    (free,) = {size for shape in inputs.values() for size in shape if isinstance(size, str)}
    (symbol,) = jax.export.symbolic_shape(free)
    return [
        jax.ShapeDtypeStruct([symbol if size == free else size for size in shape], jnp.float32)
        for shape in inputs.values()
    ]


def serialized(program: Program) -> bytes:
    """Return the program as jax.export serialises it, for PLATFORMS and any size that is free.

    Raises:
      UsageError: the program is larger than the format's 2 GiB.
    """
    with ops.portable():
        function, arrays = jax.jit(program.function), symbolic(program.inputs)
        # before they are lowered, which takes three times their memory
        if sum(each.nbytes for each in function.trace(*arrays).jaxpr.consts) > LARGEST:
            raise UsageError(
                "the weights exceed the 2 GiB of a stablehlo file; give --format=onnx,safetensors"
            )
        return bytes(jax.export.export(function, platforms=PLATFORMS)(*arrays).serialize())
