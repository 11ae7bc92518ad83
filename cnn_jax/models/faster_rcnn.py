"""Two-stage detectors: regions are proposed from a backbone's maps, then told apart and refined.

Ren et al. 2015, "Faster R-CNN"; He et al. 2017, "Mask R-CNN"; Lin et al. 2017, "Feature pyramid
networks". The numbers are torchvision's. Every array has a fixed size and a mask of what counts in
it, so that a whole detector is one program. Boxes are (x1, y1, x2, y2) in pixels of the canvas;
class 0 is the background.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import Scope
from jax.nn.initializers import normal
from jaxtyping import Array, Bool, Float, Int

from cnn_jax import ops
from cnn_jax.layers import conv, conv_transpose, dense, dropout, flatten, relu
from cnn_jax.models import fpn, resnet
from cnn_jax.models.entry import Entry
from cnn_jax.runtime.parallel import each_device

Maps = Sequence[Float[Array, "n _h _w c"]]


def two_dense(
    scope: Scope,
    regions: Float[Array, "n k s s c"],
    features: int,
    *,
    dropout_rate: float = 0.0,
) -> Float[Array, "n k features"]:
    """Two rectified dense layers on each region."""
    n, k = regions.shape[:2]
    x = scope.child(flatten, "flatten")(regions.reshape(n * k, *regions.shape[2:]))
    for name in ("fc6", "fc7"):
        x = scope.child(relu, f"{name}_relu")(scope.child(dense, name)(x, features))
        if dropout_rate:
            x = scope.child(dropout, f"{name}_dropout")(x, dropout_rate)
    return x.reshape(n, k, features)


class Settings(NamedTuple):
    """What a detector is and how it is trained, besides its weights."""

    backbone: Callable[..., Maps] = fpn.resnet_fpn  # f(scope, images)
    lowest_level: int = 2  # the first map's stride is 2 to this power
    region_maps: int = 4  # how many of the maps, from the first on, regions are cut from
    canonical_size: float = 224  # the side of the regions that are cut from level 4

    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))  # by map
    anchor_ratios: tuple[float, ...] = (0.5, 1, 2)
    anchor_foreground: float = 0.7  # overlap with an object
    anchor_background: float = 0.3
    anchors_sampled: int = 256  # an image
    anchor_positives: float = 0.5  # at most, of those

    candidates: tuple[int, int] = (2000, 1000)  # a map before suppression, in training and after
    proposals: tuple[int, int] = (2000, 1000)  # an image, in training and after
    proposal_overlap: float = 0.7
    smallest_proposal: float = 1e-3

    # f(map, boxes, outputs, scale=...) -> regions of the first map; None: RoIAlign of them all
    region_pool: Callable[..., Array] | None = None
    region_size: int = 7
    head: Callable[..., Array] = two_dense  # f(scope, regions, head_features) -> [n, k, features]
    head_features: int = 1024
    region_foreground: float = 0.5
    region_background: float = 0.0  # the least overlap, below the foreground's, that is learnt from
    regions_sampled: int = 512
    region_positives: float = 0.25
    region_weights: tuple[float, ...] = (10, 10, 5, 5)
    learns_boxes: bool = True  # else a region's box is what is found
    region_beta: float = 1 / 9  # where smooth L1 goes from a parabola to a line

    least_score: float = 0.05
    smallest_detection: float = 1e-2
    detection_overlap: float = 0.5
    detections: int = 100
    suppressed: int = 2000  # boxes of all classes that enter the last suppression

    mask_layers: int = 0  # convolutions of the mask head; 0: boxes alone
    mask_features: int = 256
    mask_size: int = 14  # of the regions; masks are twice as large


class Proposals(NamedTuple):
    """Boxes that may hold an object, padded to p an image.  valid: which are there."""

    boxes: Float[Array, "n p 4"]
    valid: Bool[Array, "n p"]


class Detections(NamedTuple):
    """The objects found in each image, the surest first.

    valid: which are there.  exact: whether no box that could have been among them was left out
    before the suppression (see Settings.suppressed).  masks: probabilities within the box; None
    without a mask head.
    """

    boxes: Float[Array, "n d 4"]
    scores: Float[Array, "n d"]
    labels: Int[Array, "n d"]
    valid: Bool[Array, "n d"]
    exact: Bool[Array, " n"]
    masks: Float[Array, "n d m m"] | None = None


def anchors(
    maps: Maps, canvas: tuple[int, int], settings: Settings
) -> list[Float[np.ndarray, "a 4"]]:
    """Return each map's anchors, position by position."""
    if len(maps) != len(settings.anchor_sizes):
        raise ValueError(f"{len(maps)} maps, anchor sizes of {len(settings.anchor_sizes)}")
    return [
        ops.grid_anchors(
            ops.base_anchors(sizes, settings.anchor_ratios),
            x.shape[1:3],
            (canvas[0] // x.shape[1], canvas[1] // x.shape[2]),
        )
        for x, sizes in zip(maps, settings.anchor_sizes, strict=True)
    ]


def proposal_head(
    scope: Scope, maps: Maps, anchors_a_cell: int
) -> tuple[list[Float[Array, "n a"]], list[Float[Array, "n a 4"]]]:
    """Return each map's objectness (logits) and box deltas, one an anchor."""
    init = normal(0.01)
    shared = scope.child(conv, "conv")
    activate = scope.child(relu, "relu")
    objectness = scope.child(conv, "cls_logits")
    deltas = scope.child(conv, "bbox_pred")
    logits, boxes = [], []
    for x in maps:
        y = activate(shared(x, x.shape[-1], init=init))
        logits.append(objectness(y, anchors_a_cell, size=1, init=init).reshape(x.shape[0], -1))
        boxes.append(deltas(y, 4 * anchors_a_cell, size=1, init=init).reshape(x.shape[0], -1, 4))
    return logits, boxes


def propose(
    objectness: Sequence[Float[Array, "n _a"]],
    deltas: Sequence[Float[Array, "n _a 4"]],
    anchors: Sequence[Float[np.ndarray, "_a 4"]],
    sizes: Int[Array, "n 2"],
    settings: Settings,
    train: bool,
) -> tuple[Float[Array, "n p 4"], Bool[Array, "n p"]]:
    """Return the boxes most likely to hold an object, and which of them are there.

    On each map the best are moved, clipped to the image and suppressed among themselves; of all
    maps' the best are taken. No gradient passes.
    """
    most, kept = (pair[0 if train else 1] for pair in (settings.candidates, settings.proposals))

    def of_image(objectness, deltas, size):
        all_boxes, all_scores = [], []
        for logits, moves, fixed in zip(objectness, deltas, anchors, strict=True):
            logits, index = jax.lax.top_k(logits, min(most, len(fixed)))
            boxes = ops.decode_boxes(moves[index], jnp.asarray(fixed, moves.dtype)[index])
            boxes = ops.clip_boxes(boxes, size[0], size[1])
            valid = ops.is_at_least(boxes, settings.smallest_proposal)
            scores = jax.nn.sigmoid(logits)
            keep = ops.nms(boxes, scores, valid, settings.proposal_overlap)
            all_boxes.append(boxes)
            all_scores.append(jnp.where(keep, scores, -1))
        boxes, scores = jnp.concatenate(all_boxes), jnp.concatenate(all_scores)
        scores, index = jax.lax.top_k(scores, min(kept, len(scores)))
        return boxes[index], scores >= 0

    objectness, deltas = jax.lax.stop_gradient(_at_least_float32((objectness, deltas)))
    return each_device(jax.vmap(of_image), objectness, deltas, sizes)


def _at_least_float32(tree):
    """Boxes in bfloat16 would lie on a grid of several pixels."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)


def cut_regions(
    maps: Maps, boxes: Float[Array, "n k 4"], outputs: int, settings: Settings
) -> Float[Array, "n k outputs outputs c"]:
    """Return the boxes' regions: by the pooling of the settings, of the first map.

    Without one, of the maps that suit their sizes: RoIAlign, two samples a bin.
    """
    if settings.region_pool is not None:
        pool = partial(settings.region_pool, outputs=outputs, scale=2.0**-settings.lowest_level)
        return jax.vmap(pool)(maps[0], boxes)
    cut = partial(
        ops.pyramid_roi_align,
        outputs=outputs,
        lowest=settings.lowest_level,
        canonical_size=settings.canonical_size,
    )
    return jax.vmap(cut)(list(maps[: settings.region_maps]), boxes)


def region_head(
    scope: Scope, maps: Maps, boxes: Float[Array, "n k 4"], num_classes: int, settings: Settings
) -> tuple[Float[Array, "n k classes"], Float[Array, "n k classes 4"]]:
    """Return the boxes' class logits, and box deltas for each class."""
    regions = cut_regions(maps, boxes, settings.region_size, settings)
    x = scope.child(settings.head, "box_head")(regions, settings.head_features)

    def predictor(scope: Scope, x: Array) -> tuple[Array, Array]:
        deltas = scope.child(dense, "bbox_pred")(x, 4 * num_classes)
        return scope.child(dense, "cls_score")(x, num_classes), deltas

    logits, deltas = scope.child(predictor, "box_predictor")(x)
    if not settings.learns_boxes:
        deltas = jnp.zeros_like(deltas)
    return logits, deltas.reshape(*deltas.shape[:2], num_classes, 4)


def mask_head(
    scope: Scope, maps: Maps, boxes: Float[Array, "n k 4"], num_classes: int, settings: Settings
) -> Float[Array, "n k m m classes"]:
    """Return the logits of each class's mask within the boxes. He et al. 2017, figure 4."""
    regions = cut_regions(maps, boxes, settings.mask_size, settings)
    n, k = boxes.shape[:2]
    x = regions.reshape(n * k, *regions.shape[2:])

    def convolutions(scope: Scope, x: Array) -> Array:
        for i in range(1, settings.mask_layers + 1):
            x = scope.child(conv, f"conv{i}")(x, settings.mask_features)
            x = scope.child(relu, f"relu{i}")(x)
        return x

    def predictor(scope: Scope, x: Array) -> Array:
        x = scope.child(conv_transpose, "conv5_mask")(x, settings.mask_features, size=2, stride=2)
        x = scope.child(relu, "relu")(x)
        return scope.child(conv, "mask_fcn_logits")(x, num_classes, size=1)

    x = scope.child(predictor, "mask_predictor")(scope.child(convolutions, "mask_head")(x))
    return x.reshape(n, k, *x.shape[1:])


def select(
    logits: Float[Array, "n k classes"],
    deltas: Float[Array, "n k classes 4"],
    proposals: Float[Array, "n k 4"],
    valid: Bool[Array, "n k"],
    sizes: Int[Array, "n 2"],
    settings: Settings,
) -> Detections:
    """Return the detections, scored by their probabilities, see select_scored."""
    scores = jax.nn.softmax(_at_least_float32(logits))[..., 1:]
    return select_scored(scores, deltas[:, :, 1:], proposals, valid, sizes, settings)


def select_scored(
    scores: Float[Array, "n k c"],
    deltas: Float[Array, "n k c 4"],
    proposals: Float[Array, "n k 4"],
    valid: Bool[Array, "n k"],
    sizes: Int[Array, "n 2"],
    settings: Settings,
) -> Detections:
    """Return the detections: each class's boxes above the least score, suppressed among themselves.

    Scores are positive; the classes are those without the background. The best `suppressed` boxes
    of all classes enter; a box is only ever suppressed by a better one, so what comes out is that
    of all boxes, unless they run out before enough are kept (exact).
    """

    def of_image(scores, deltas, proposals, valid, size):
        boxes = ops.decode_boxes(deltas, proposals[:, None], settings.region_weights)
        boxes = ops.clip_boxes(boxes, size[0], size[1])
        possible = valid[:, None] & (scores > settings.least_score)
        possible &= ops.is_at_least(boxes, settings.smallest_detection)
        ranked = jnp.where(possible, scores, -1).ravel()
        best, index = jax.lax.top_k(ranked, min(settings.suppressed, ranked.size))
        boxes, labels = boxes.reshape(-1, 4)[index], index % scores.shape[1]
        keep = ops.nms(boxes, best, best >= 0, settings.detection_overlap, labels)
        count = min(settings.detections, len(best))
        found, index = jax.lax.top_k(jnp.where(keep, best, -1), count)
        exact = (possible.sum() <= len(best)) | (keep.sum() >= settings.detections)
        there = found >= 0
        labels = jnp.where(there, labels[index] + 1, 0)
        boxes = jnp.where(there[:, None], boxes[index], 0)
        return Detections(boxes, jnp.where(there, found, 0), labels, there, exact)

    scores, deltas = _at_least_float32((scores, deltas))
    return each_device(jax.vmap(of_image), scores, deltas, proposals, valid, sizes)


def canvas_sizes(images: Float[Array, "n h w c"]) -> Int[Array, "n 2"]:
    """Return the sizes of images that fill their canvas."""
    return jnp.broadcast_to(jnp.asarray(images.shape[1:3]), (images.shape[0], 2))


def first_stage(
    scope: Scope, images: Float[Array, "n h w 3"], settings: Settings
) -> tuple[Maps, list[Array], list[Array], list[np.ndarray]]:
    """Return the maps, each one's objectness and box deltas, and its anchors."""
    maps = scope.child(settings.backbone, "backbone")(images)
    fixed = anchors(maps, images.shape[1:3], settings)
    a_cell = len(settings.anchor_ratios) * len(settings.anchor_sizes[0])
    objectness, deltas = scope.child(proposal_head, "rpn")(maps, a_cell)
    return maps, objectness, deltas, fixed


def faster_rcnn(
    scope: Scope,
    images: Float[Array, "n h w 3"],
    num_classes: int,
    *,
    sizes: Int[Array, "n 2"] | None = None,
    settings: Settings = Settings(),  # noqa: B008
) -> Detections:
    """Return what is found in the images, whose training is tasks.detection's.

    Args:
      images: normalised; each in the upper left corner of its canvas, zeros beside it.
      num_classes: with the background.
      sizes: height and width of each image; without, that of the canvas.
    """
    sizes = canvas_sizes(images) if sizes is None else sizes
    maps, objectness, deltas, fixed = first_stage(scope, images, settings)
    proposals, valid = propose(objectness, deltas, fixed, sizes, settings, train=False)
    logits, deltas = region_head(scope, maps, proposals, num_classes, settings)
    found = select(logits, deltas, proposals, valid, sizes, settings)
    if not settings.mask_layers:
        return found
    masks = mask_head(scope, maps, found.boxes, num_classes, settings)
    own = jnp.take_along_axis(masks, found.labels[..., None, None, None], -1)[..., 0]
    return found._replace(masks=jax.nn.sigmoid(own))


def torchvision_name(path: str) -> str:
    """Return torchvision's module for a scope path: rpn/cls_logits -> rpn.head.cls_logits."""
    part, _, rest = path.partition("/")
    if part == "backbone":
        return f"backbone.{fpn.torchvision_name(rest)}"
    if part == "rpn":
        return "rpn.head." + ("conv.0.0" if rest == "conv" else rest)
    if part == "mask_head":
        return f"roi_heads.mask_head.{int(rest.removeprefix('conv')) - 1}.0"
    return f"roi_heads.{part}.{rest}"


def current_name(name: str) -> str:
    """Return today's name of a tensor in torchvision's published files.

    They were written before the pyramid's and the heads' convolutions became blocks.
    """
    for old, new in (
        (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)", r"\1.0.\2"),
        (r"(rpn\.head\.conv)\.(weight|bias)", r"\1.0.0.\2"),
        (r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)", _mask_layer),
    ):
        name = re.sub(rf"^{old}$", new, name)
    return name


def _mask_layer(match: re.Match) -> str:
    return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"


def detector(settings: Settings, image_size: int = 800, num_classes: int = 91) -> Entry:
    """Return the registry's row of a detector, by default of COCO's classes."""
    return Entry(
        partial(faster_rcnn, settings=settings),
        image_size=image_size,
        num_classes=num_classes,
        task="detection",
        published_name=torchvision_name,
        current_name=current_name,
        resize=image_size,
        norm_epsilon=getattr(settings.backbone, "keywords", {}).get("norm_epsilon", 1e-5),
    )


# The published weights were trained with this epsilon.
published_backbone = partial(fpn.resnet_fpn, norm_epsilon=0.0)

# For images of 128 pixels and objects of 10 to 100, from drawn weights: the norms are trained.
SMALL = Settings(
    backbone=partial(
        fpn.resnet_fpn,
        block=resnet.basic_block,
        stage_sizes=(1, 1, 1, 1),
        width=32,
        features=64,
        frozen_norms=False,
    ),
    anchor_sizes=((10, 14), (20, 28), (40, 56), (80, 100), (112, 128)),
    anchor_foreground=0.6,
    candidates=(200, 100),
    proposals=(100, 50),
    head_features=256,
    regions_sampled=32,
    region_positives=0.5,
    suppressed=200,
    detections=20,
)

MODELS = {
    "fasterrcnn_resnet50_fpn": detector(Settings(backbone=published_backbone)),
    "fasterrcnn_resnet10_fpn": detector(SMALL, image_size=128, num_classes=9),
}
