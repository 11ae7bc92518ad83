"""Detection: what is to be found, which boxes learn from it, and the losses.

The rules and numbers are torchvision's (cnn_jax.models.faster_rcnn.Settings has them). Objects and
samples are padded to a fixed number; every loss is summed over what counts and divided by how much
does, over all images of all devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import Scope
from jaxtyping import Array, Bool, Float, Int

from cnn_jax import ops
from cnn_jax.models.faster_rcnn import (
    Proposals,
    Settings,
    canvas_sizes,
    first_stage,
    mask_head,
    propose,
    region_head,
)

# Below it smooth L1 is a parabola, above it a line. Ren et al.'s released code has 1 / 9 here.
PROPOSAL_BETA = 1 / 9


class Truth(NamedTuple):
    """The objects of each image, padded to m of them.

    boxes: (x1, y1, x2, y2) in pixels of the canvas.  labels: from 1 on.  valid: which objects are
    there.  masks: of the visible pixels, on the canvas; None where boxes alone are learnt.
    """

    boxes: Float[Array, "n m 4"]
    labels: Int[Array, "n m"]
    valid: Bool[Array, "n m"]
    masks: Bool[Array, "n m h w"] | None = None


class Priorities(NamedTuple):
    """Numbers in 0..1 that decide which candidates are sampled: the highest ones are."""

    anchors: Float[Array, "n a"]
    regions: Float[Array, "n k"]


class Draw(NamedTuple):
    """What the samples of some images are drawn by: a key, and the images' places in its batch.

    rows: int [n], among `images` that are drawn together, on other devices say; None: all are here.
    """

    key: Array
    rows: Int[Array, " n"] | None = None
    images: int | None = None


def draw_priorities(draw: Draw, images: int, anchors: int, regions: int) -> Priorities:
    """Return random priorities, with which every sample is equally likely."""
    together = images if draw.rows is None else draw.images
    every = Priorities(
        *(
            jax.random.uniform(key, (together, count))
            for key, count in zip(jax.random.split(draw.key), (anchors, regions), strict=True)
        )
    )
    return every if draw.rows is None else jax.tree.map(lambda x: x[draw.rows], every)


def learnable(truth: Truth, sizes: Int[Array, "n 2"]) -> Truth:
    """Return the objects clipped to the image, without those of which nothing is left."""

    def of_image(boxes, size):
        return ops.clip_boxes(boxes, size[0], size[1])

    boxes = jax.vmap(of_image)(truth.boxes, sizes)
    valid = truth.valid & ops.is_at_least(boxes, 1e-3)
    # whatever stands in the padding, a NaN included, must not reach a gradient through a where
    return truth._replace(boxes=jnp.where(valid[..., None], boxes, 0), valid=valid)


def smooth_l1(difference: Float[Array, "*n"], beta: float) -> Float[Array, "*n"]:
    """Return |x| - beta / 2, rounded to a parabola below beta. Girshick 2015, equation 3."""
    size = jnp.abs(difference)
    return jnp.where(size < beta, size**2 / (2 * beta), size - beta / 2)


def binary_cross_entropy(
    logits: Float[Array, "*n"], target: Float[Array, "*n"] | Bool[Array, "*n"]
) -> Float[Array, "*n"]:
    """Return the cross-entropy, in nats, of a sigmoid's logits."""
    return jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def _mean(
    values: Array, counted: Array, axis_name: str | None, among: Array | None = None
) -> Array:
    """Return the sum of the counted values by the number of those among which they are.

    0 where nothing counts. Each of several devices has its sum by the devices' mean number: the
    mean over the devices is then that over all images.

    Args:
      among: by default as many as are counted.
    """
    number = (counted if among is None else among).sum()
    total = jnp.where(counted, values, 0).sum()
    if axis_name is None:
        return total / jnp.maximum(number, 1)
    devices = jax.lax.axis_size(axis_name)
    return total * devices / jnp.maximum(jax.lax.psum(number, axis_name), 1)


def proposal_losses(
    objectness: Float[Array, "n a"],
    deltas: Float[Array, "n a 4"],
    anchors: Float[np.ndarray, "a 4"],
    truth: Truth,
    priorities: Float[Array, "n a"],
    settings: Settings,
    axis_name: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """Return the losses of the first stage: "objectness" and "rpn_box".

    Ren et al. 2015, equation 1, both divided by the number of sampled anchors.
    """
    anchors = jnp.asarray(anchors, deltas.dtype)

    def of_image(objectness, deltas, boxes, valid, priorities):
        matches = ops.match_boxes(
            ops.box_iou(boxes, anchors),
            valid,
            foreground=settings.anchor_foreground,
            background=settings.anchor_background,
            low_quality=True,
        )
        index, chosen = ops.balanced_sample(
            matches, priorities, settings.anchors_sampled, settings.anchor_positives
        )
        matches = matches[index]
        positive = chosen & (matches >= 0)
        target = ops.encode_boxes(boxes[jnp.maximum(matches, 0)], anchors[index])
        box = smooth_l1(deltas[index] - target, PROPOSAL_BETA).sum(-1)
        return binary_cross_entropy(objectness[index], positive), box, chosen, positive

    entropy, box, chosen, positive = jax.vmap(of_image)(
        objectness, deltas, truth.boxes, truth.valid, priorities
    )
    return {
        "objectness": _mean(entropy, chosen, axis_name),
        "rpn_box": _mean(box, positive, axis_name, chosen),
    }


class Regions(NamedTuple):
    """The sampled regions of each image, those with an object first, and what they should become.

    object: the object's number; labels: its class, 0 of the background; counted: which are there.
    """

    boxes: Float[Array, "n k 4"]
    object: Int[Array, "n k"]
    labels: Int[Array, "n k"]
    deltas: Float[Array, "n k 4"]
    counted: Bool[Array, "n k"]


def sample_regions(
    proposals: Float[Array, "n p 4"],
    valid: Bool[Array, "n p"],
    truth: Truth,
    priorities: Float[Array, "n k"],
    settings: Settings,
) -> Regions:
    """Return the regions that the second stage learns from, drawn of proposals and true boxes.

    Background overlaps its nearest object by region_background at least: what lies far from all of
    them is easy (Girshick 2015, section 2.3). Priorities: of the proposals, then of the true boxes.
    """

    def of_image(proposals, valid, boxes, labels, there, priorities):
        candidates = jnp.concatenate([proposals, boxes])
        overlaps = ops.box_iou(boxes, candidates)
        matches = ops.match_boxes(
            overlaps,
            there,
            foreground=settings.region_foreground,
            background=settings.region_foreground,
        )
        nearest = jnp.where(there[:, None], overlaps, 0).max(0)
        known = jnp.concatenate([valid, there]) & (nearest >= settings.region_background)
        matches = jnp.where(known, matches, ops.IGNORED)
        index, counted = ops.balanced_sample(
            matches, priorities, settings.regions_sampled, settings.region_positives
        )
        matches, sampled = matches[index], candidates[index]
        own = jnp.maximum(matches, 0)
        deltas = ops.encode_boxes(boxes[own], sampled, settings.region_weights)
        positive = counted & (matches >= 0)
        return Regions(sampled, own, jnp.where(positive, labels[own], 0), deltas, counted)

    return jax.vmap(of_image)(proposals, valid, truth.boxes, truth.labels, truth.valid, priorities)


def region_losses(
    logits: Float[Array, "n k classes"],
    deltas: Float[Array, "n k classes 4"],
    regions: Regions,
    beta: float,
    axis_name: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """Return the losses of the second stage: "classifier" and "box".

    Girshick 2015, equations 1 to 3, both divided by the number of sampled regions.

    Args:
      beta: of smooth_l1.
    """
    labels = regions.labels
    entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
    own = jnp.take_along_axis(deltas, labels[..., None, None], 2)[:, :, 0]
    box = smooth_l1(own - regions.deltas, beta).sum(-1)
    positive = regions.counted & (labels > 0)
    return {
        "classifier": _mean(entropy, regions.counted, axis_name),
        "box": _mean(box, positive, axis_name, regions.counted),
    }


def mask_targets(
    masks: Bool[Array, "n m h w"],
    boxes: Float[Array, "n k 4"],
    objects: Int[Array, "n k"],
    size: int,
) -> Float[Array, "n k size size"]:
    """Return what part of each bin of a box its object's mask covers."""

    def of_region(mask, box):
        plane = mask[..., None].astype(box.dtype)
        return ops.roi_align(plane, box[None], size, sampling_ratio=None)[0, ..., 0]

    return jax.vmap(lambda masks, boxes, own: jax.vmap(of_region)(masks[own], boxes))(
        masks, boxes, objects
    )


def mask_loss(
    logits: Float[Array, "n k m m classes"],
    target: Float[Array, "n k m m"],
    labels: Int[Array, "n k"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Return the cross-entropy of the true class's masks. He et al. 2017, section 3."""
    own = jnp.take_along_axis(logits, labels[..., None, None, None], -1)[..., 0]
    entropy = binary_cross_entropy(own, target)
    return _mean(entropy, jnp.broadcast_to(labels[..., None, None] > 0, entropy.shape), axis_name)


def losses(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    truth: Truth,
    draw: Array | Draw | Priorities,
    *,
    num_classes: int,
    settings: Settings,
    sizes: Int[Array, "n 2"] | None = None,
    given: Proposals | None = None,
    axis_name: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """Return each of the detector's losses; their sum is what is trained.

    Args:
      images: normalised; each in the upper left corner of its canvas.
      draw: what the samples are drawn by, a key or Draw, or the priorities themselves.
      sizes: height and width of each image; without, that of the canvas.
      given: proposals that come with the images, of a detector without a first stage.
      axis_name: of the devices over which a batch is spread; its losses are the mean over them.
    """
    sizes = canvas_sizes(images) if sizes is None else sizes
    precision = jnp.promote_types(images.dtype, jnp.float32)
    truth = learnable(truth._replace(boxes=truth.boxes.astype(precision)), sizes)
    if given is None:
        maps, objectness, deltas, anchors = first_stage(scope, images, settings)
        proposals, valid = propose(objectness, deltas, anchors, sizes, settings, train=True)
    else:
        maps = scope.child(settings.backbone, "backbone")(images)
        objectness, deltas, anchors = [], [], []  # of no first stage
        proposals, valid = given.boxes.astype(precision), given.valid

    if not isinstance(draw, Priorities):
        candidates = proposals.shape[1] + truth.boxes.shape[1]
        draw = draw if isinstance(draw, Draw) else Draw(draw)
        draw = draw_priorities(draw, len(images), sum(map(len, anchors)), candidates)
    found = {}
    if given is None:
        found = proposal_losses(
            jnp.concatenate(objectness, 1).astype(precision),
            jnp.concatenate(deltas, 1).astype(precision),
            np.concatenate(anchors),
            truth,
            draw.anchors,
            settings,
            axis_name,
        )
    regions = sample_regions(proposals, valid, truth, draw.regions, settings)
    logits, deltas = region_head(scope, maps, regions.boxes, num_classes, settings)
    logits, deltas = logits.astype(precision), deltas.astype(precision)
    found |= region_losses(logits, deltas, regions, settings.region_beta, axis_name)
    if not settings.learns_boxes:
        del found["box"]
    if settings.mask_layers:
        # positives come first, so the rest of the sample cannot have a mask
        first = int(settings.regions_sampled * settings.region_positives)
        boxes, objects, labels = (x[:, :first] for x in regions[:3])
        logits = mask_head(scope, maps, boxes, num_classes, settings).astype(precision)
        target = mask_targets(truth.masks, boxes, objects, logits.shape[2])
        found["mask"] = mask_loss(logits, target, labels, axis_name)
    return found
