"""Fast R-CNN: one pass over the image, whose map the given regions are cut from.

Girshick 2015, "Fast R-CNN". Where Faster R-CNN proposes regions itself, here they come with the
images, from selective search for instance (cnn_jax.data.proposals).
"""

from functools import partial

import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float, Int

from cnn_jax import ops
from cnn_jax.models import fpn, resnet, vgg
from cnn_jax.models.entry import Entry
from cnn_jax.models.faster_rcnn import (
    Detections,
    Maps,
    Proposals,
    Settings,
    canvas_sizes,
    region_head,
    select,
    two_dense,
)


def whole_images(sizes: Int[Array, "n 2"]) -> Proposals:
    """Return each image as its only region."""
    height, width = sizes[:, 0], sizes[:, 1]
    zero = jnp.zeros_like(width)
    boxes = jnp.stack([zero, zero, width, height], -1)[:, None].astype(jnp.float32)
    return Proposals(boxes, jnp.ones((len(sizes), 1), bool))


def fast_rcnn(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    proposals: Proposals | None = None,
    sizes: Int[Array, "n 2"] | None = None,
    settings: Settings,
) -> Detections:
    """Return what is found in the regions, whose training is tasks.detection's.

    Args:
      images: normalised; each in the upper left corner of its canvas, zeros beside it.
      num_classes: with the background.
      proposals: the regions, in pixels of the canvas; without, each image is its only one.
      sizes: height and width of each image; without, that of the canvas.
    """
    sizes = canvas_sizes(images) if sizes is None else sizes
    boxes, valid = whole_images(sizes) if proposals is None else proposals
    maps = scope.child(settings.backbone, "backbone")(images)
    logits, deltas = region_head(scope, maps, boxes, num_classes, settings)
    return select(logits, deltas, boxes, valid, sizes, settings)


def vgg16_map(scope: Scope, images: Float[Array, "n h w 3"]) -> Maps:
    """VGG16's last convolution: RoI pooling stands for the pooling behind it (section 2.2)."""
    return [vgg.convolutions(scope, images, (2, 2, 3, 3, 3))]


# The paper's, sections 2.3 and 3.1; two images a batch. RoI pooling is of stride-16 maps.
PUBLISHED = Settings(
    backbone=vgg16_map,
    lowest_level=4,
    anchor_sizes=(),
    region_pool=ops.roi_pool,
    head=partial(two_dense, dropout_rate=0.5),
    head_features=4096,
    region_background=0.1,
    regions_sampled=64,
    region_beta=1,
    detection_overlap=0.3,
)

# For images of 128 pixels and objects of 10 to 100: a map of stride 8.
SMALL = PUBLISHED._replace(
    backbone=partial(
        fpn.resnet_map,
        block=resnet.basic_block,
        stage_sizes=(2, 2),
        width=32,
        frozen_norms=False,
    ),
    lowest_level=3,
    head=two_dense,
    head_features=256,
    suppressed=200,
    detections=20,
)


def detector(settings: Settings, image_size: int, num_classes: int) -> Entry:
    """Return the registry's row of a detector whose regions come with the images."""
    return Entry(
        partial(fast_rcnn, settings=settings),
        image_size=image_size,
        num_classes=num_classes,
        task="detection",
        resize=image_size,
    )


MODELS = {
    "fastrcnn_vgg16": detector(PUBLISHED, image_size=600, num_classes=21),
    "fastrcnn_resnet10": detector(SMALL, image_size=128, num_classes=9),
}
