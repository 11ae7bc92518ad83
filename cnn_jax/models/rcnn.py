"""R-CNN's network: a classifier of regions, each warped to one size and run by itself.

Girshick et al. 2014, "Rich feature hierarchies for accurate object detection and semantic
segmentation". It is Fast R-CNN with the cutting done before the convolutions instead of behind
them. The network is trained as a classifier; what finds objects in the end are support vector
machines and ridge regressions on its features, see tasks.rcnn.
"""

from functools import partial

import jax.numpy as jnp
from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax import ops
from cnn_jax.layers import Layer, tapped
from cnn_jax.models import alexnet, resnet
from cnn_jax.models.fast_rcnn import PUBLISHED as FAST
from cnn_jax.models.fast_rcnn import detector
from cnn_jax.models.faster_rcnn import Maps, two_dense

CONTEXT = 16 / 227  # of the warp's side, around the box, on each side


def warp(
    image: Float[Array, "h w c"],
    boxes: Float[Array, "k 4"],
    outputs: int,
    *,
    scale: float = 1.0,
) -> Float[Array, "k outputs outputs c"]:
    """Return each box with its surroundings, whatever its shape, as outputs x outputs pixels.

    What lies beyond the image is 0, the mean colour of normalised images. Appendix A, (D).
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    margin = sides * (CONTEXT / (1 - 2 * CONTEXT))
    grown = boxes + jnp.concatenate([-margin, margin], -1)
    return ops.roi_align(image, grown, outputs, scale=scale, aligned=True)


def images_themselves(scope: Scope, images: Float[Array, "n h w 3"]) -> Maps:
    """The map that regions are cut from."""
    return [images]


def warped_network(
    scope: Scope, regions: Float[Array, "n k s s 3"], features: int, *, convolutions: Layer
) -> Float[Array, "n k features"]:
    """Convolutions, whose map passes the tap as "last_map", and two dense layers, region by region.

    Args:
      convolutions: f(scope, images) -> map.
    """
    n, k = regions.shape[:2]
    x = convolutions(scope, regions.reshape(n * k, *regions.shape[2:]))
    x = tapped(scope, x, "last_map")
    return two_dense(scope, x.reshape(n, k, *x.shape[1:]), features)


def small_convolutions(scope: Scope, x: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 128"]:
    """A narrow residual network's first three stages, a sixteenth of the size."""
    return resnet.stages(scope, resnet.stem(scope, x, 32), resnet.basic_block, (1, 1, 1), 32)


# The paper's: 32 windows with an object and 96 without a batch (section 2.3), here of 8 images.
PUBLISHED = FAST._replace(
    backbone=images_themselves,
    lowest_level=0,
    region_pool=warp,
    region_size=227,
    head=partial(warped_network, convolutions=alexnet.convolutions),
    region_background=0.0,
    regions_sampled=16,
    learns_boxes=False,
)

SMALL = PUBLISHED._replace(
    region_size=48,
    head=partial(warped_network, convolutions=small_convolutions),
    head_features=256,
    suppressed=200,
    detections=20,
)

MODELS = {
    "rcnn_alexnet": detector(PUBLISHED, image_size=500, num_classes=21),
    "rcnn_resnet10": detector(SMALL, image_size=128, num_classes=9),
}
