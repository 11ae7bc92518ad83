"""Classification with localisation: the joint loss, and ILSVRC's localisation error.

Boxes are (x1, y1, x2, y2) in shares of the image. An example has a class and the boxes of that
class's objects, filled up with boxes of no area, which nothing overlaps; the first is learnt.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax
from jax import vmap
from jaxtyping import Array, Bool, Float, Int

from cnn_jax.ops.boxes import box_area, box_iou
from cnn_jax.tasks import classification

Outputs = Mapping[str, Array]  # "logits" [n, classes] and "boxes" [n, classes or 1, 4]

# The squared distance of boxes, in shares of the image, is near .2 before training, the
# cross-entropy near 2.
BOX_WEIGHT = 20.0
# ILSVRC: the least intersection over union of a right box
LEAST_IOU = 0.5


def boxes_of(outputs: Outputs, label: Int[Array, "n k"]) -> Float[Array, "n k 4"]:
    """Return the boxes that the network gives these classes: of an agnostic one, its only box."""
    boxes = outputs["boxes"].astype(jnp.float32)
    if boxes.shape[1] == 1:
        return jnp.broadcast_to(boxes, (*label.shape, 4))
    return jnp.take_along_axis(boxes, label[..., None], axis=1)


def loss(
    outputs: Outputs, label: Int[Array, " n"], boxes: Float[Array, "n m 4"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return each example's cross-entropy (nats) and squared distance of the true class's box.

    The distance is summed over the corners; that of an example without a box is 0.
    """
    target = boxes[:, 0]
    distance = optax.squared_error(boxes_of(outputs, label[:, None])[:, 0], target).sum(axis=-1)
    distance = jnp.where(box_area(target) > 0, distance, 0)
    return classification.cross_entropy(outputs["logits"], label), distance


def guesses(outputs: Outputs, k: int) -> tuple[Int[Array, "n k"], Float[Array, "n k 4"]]:
    """Return the k classes of the highest logits (all, of fewer) and their boxes, best first."""
    logits = outputs["logits"]
    order = jnp.argsort(-logits, axis=-1)[:, : min(k, logits.shape[-1])]
    return order, boxes_of(outputs, order)


def right_guesses(
    guessed_label: Int[Array, "n k"],
    guessed_boxes: Float[Array, "n k 4"],
    label: Int[Array, " n"],
    boxes: Float[Array, "n m 4"],
) -> tuple[Bool[Array, "n k"], Bool[Array, "n k"]]:
    """Return whether each guess has the class, and whether its box overlaps one of the boxes.

    By half of the union at least, as ILSVRC asks (Russakovsky et al. 2015, section 4.2). A guess
    is right where both hold; an example is where one of its first k guesses is.
    """
    overlap = vmap(box_iou)(guessed_boxes, boxes).max(axis=-1)
    return guessed_label == label[:, None], overlap >= LEAST_IOU


def metric_sums(
    outputs: Outputs,
    label: Int[Array, " n"],
    boxes: Float[Array, "n m 4"],
    weight: Float[Array, " n"],
) -> dict[str, Array]:
    """Return sums over the examples of weight 1: what batches can be added up from.

    examples; loss; iou of the true class's box and the first; class1 and class5, located1 and
    located5: examples whose class, or class and box, is among the first guess or five; only_class
    and only_box: whose first guess has the class alone, or the box alone, right.
    """
    counted = weight > 0
    entropy, distance = loss(outputs, label, boxes)
    right_class, right_box = right_guesses(*guesses(outputs, 5), label, boxes)
    right = right_class & right_box
    own = boxes_of(outputs, label[:, None])
    iou = vmap(box_iou)(own, boxes[:, :1])[:, 0, 0]

    def total(values: Array) -> Array:
        return jnp.where(counted, values, 0).sum()

    return {
        "examples": counted.sum(),
        "loss": total(entropy + BOX_WEIGHT * distance),
        "iou": total(iou),
        "class1": total(right_class[:, 0]),
        "class5": total(right_class.any(axis=-1)),
        "located1": total(right[:, 0]),
        "located5": total(right.any(axis=-1)),
        "only_class": total(right_class[:, 0] & ~right_box[:, 0]),
        "only_box": total(~right_class[:, 0] & right_box[:, 0]),
    }


def summarize(sums: Mapping[str, Array], class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the metrics of metric_sums added over a whole data set, errors as fractions.

    top1_error, top5_error: of the class; top1_localization_error, top5_localization_error: of
    class and box (ILSVRC's); mean_iou of the true class's box; error_kinds of the first guess:
    shares of all examples whose box, class or both are wrong.
    """
    examples = int(sums["examples"])

    def share(count: Any) -> float:
        return float(count) / examples

    wrong = examples - int(sums["located1"])
    only_class, only_box = int(sums["only_class"]), int(sums["only_box"])
    return {
        "examples": examples,
        "loss": share(sums["loss"]),
        "mean_iou": share(sums["iou"]),
        "top1_error": 1 - share(sums["class1"]),
        "top5_error": 1 - share(sums["class5"]),
        "top1_localization_error": share(wrong),
        "top5_localization_error": 1 - share(sums["located5"]),
        "error_kinds": {
            "box": share(only_class),
            "class": share(only_box),
            "both": share(wrong - only_class - only_box),
        },
        "class_names": list(class_names),
    }
