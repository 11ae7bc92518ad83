"""What is exported of a network: a function of pixels alone, with a free batch size."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.models.faster_rcnn import Settings, first_stage, region_head
from cnn_jax.models.rcnn import images_themselves
from cnn_jax.models.registry import Model, find
from cnn_jax.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")

Outputs = dict[str, Array]


def outputs(network: Trained) -> Callable[[Float[Array, "n h w c"]], Outputs]:
    """Return f(pixels) -> outputs by name; pixels are floats in 0..1, normalised inside.

    Of a classifier or a segmentation network the output is "logits", of a localizer "logits" and
    "boxes". Of a detector they are the backbone's maps, "map0" and on, and where it proposes
    regions itself the raw heads on each: "objectness0" (logits) [n, anchors] and "deltas0"
    [n, anchors, 4]; how boxes are chosen from these is not part of it. Of R-CNN, which cuts its
    regions from the image itself, the pixels are warped regions, and the output their "logits".
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


def symbolic_pixels(shape: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    """Return the shape of a batch of any number of images, float32.

    Args:
      shape: height, width and channels.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, *shape), jnp.float32)


def serialized(function: Callable, shape: tuple[int, int, int]) -> bytes:
    """Return f(pixels) as jax.export serialises it, for PLATFORMS and any batch size.

    Raises:
      UsageError: flatbuffers is not installed, or the program is larger than the format's 2 GiB.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise UsageError("stablehlo needs flatbuffers: pip install flatbuffers") from None
    with ops.portable():
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)
        return bytes(exported(symbolic_pixels(shape)).serialize())
