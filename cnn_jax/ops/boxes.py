"""Boxes (x1, y1, x2, y2) in pixels, of a fixed number each, so that every function here jits.

x grows to the right and y downwards; x2 and y2 lie beyond the last pixel, so that the width is
x2 - x1. A box of no or negative area overlaps nothing. What pads an array is marked by a mask of
its own, never by its coordinates. All functions are of one image; vmap makes them of a batch.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Boxes = Float[Array, "*n 4"]

# The largest dw and dh that decode_boxes takes at their word: 1000 pixels from an anchor of 16.
LARGEST_LOG_SCALE = math.log(1000 / 16)

IGNORED, BACKGROUND = -2, -1


def box_area(boxes: Boxes) -> Float[Array, "*n"]:
    """Return width times height, 0 where either is negative."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def box_iou(one: Float[Array, "n 4"], other: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Return every pair's intersection over union, 0 where the union is empty."""
    low = jnp.maximum(one[:, None, :2], other[None, :, :2])
    high = jnp.minimum(one[:, None, 2:], other[None, :, 2:])
    intersection = box_area(jnp.concatenate([low, high], -1))
    union = box_area(one)[:, None] + box_area(other)[None] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def clip_boxes(boxes: Boxes, height: float | Array, width: float | Array) -> Boxes:
    """Return the boxes' parts inside the image; a box outside becomes one of no area."""
    limits = jnp.stack([width, height, width, height]).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits)


def is_at_least(boxes: Boxes, side: float) -> Bool[Array, "*n"]:
    """Return whether both sides of a box are that long."""
    return (boxes[..., 2:] - boxes[..., :2] >= side).all(-1)


def _centres_and_sides(boxes: Boxes) -> tuple[Array, Array]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def encode_boxes(
    boxes: Boxes, references: Boxes, weights: Sequence[float] = (1, 1, 1, 1)
) -> Float[Array, "*n 4"]:
    """Return (dx, dy, dw, dh) from references to boxes: centres by the side, logarithms of sides.

    Each is scaled by its weight. Girshick et al. 2014, equations 6 to 9. Sides below 1e-6 count as
    1e-6, so that a box of no area gives finite numbers, which the caller masks.
    """
    centres, sides = _centres_and_sides(boxes)
    own_centres, own_sides = _centres_and_sides(references)
    sides, own_sides = jnp.maximum(sides, 1e-6), jnp.maximum(own_sides, 1e-6)
    deltas = [(centres - own_centres) / own_sides, jnp.log(sides / own_sides)]
    return jnp.concatenate(deltas, -1) * jnp.asarray(weights, boxes.dtype)


def decode_boxes(
    deltas: Float[Array, "*n 4"],
    references: Float[Array, "*#n 4"],
    weights: Sequence[float] = (1, 1, 1, 1),
) -> Boxes:
    """Return the boxes that encode_boxes made deltas of; dw and dh end at LARGEST_LOG_SCALE.

    An axis of length 1 of the references is of all the deltas along it.
    """
    centres, sides = _centres_and_sides(references)
    deltas = deltas / jnp.asarray(weights, deltas.dtype)
    centres = deltas[..., :2] * sides + centres
    half = 0.5 * jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST_LOG_SCALE)) * sides
    return jnp.concatenate([centres - half, centres + half], -1)


def base_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Float[np.ndarray, "a 4"]:
    """Return the anchors around the origin, in whole pixels: ratio by ratio, of every size.

    A size is the root of the area in pixels, a ratio is height / width. Ren et al. 2015.
    """
    roots = np.sqrt(np.asarray(ratios, np.float64))
    half = [np.outer(1 / roots, sizes).ravel() / 2, np.outer(roots, sizes).ravel() / 2]
    return np.round(np.stack([-half[0], -half[1], half[0], half[1]], -1))


def grid_anchors(
    base: Float[np.ndarray, "a 4"], grid: tuple[int, int], stride: tuple[int, int]
) -> Float[np.ndarray, "anchors 4"]:
    """Return the base anchors moved to every cell's origin, row by row.

    Args:
      grid: rows and columns of the feature map.
      stride: image pixels between its rows and between its columns.
    """
    y, x = np.meshgrid(
        np.arange(grid[0]) * stride[0], np.arange(grid[1]) * stride[1], indexing="ij"
    )
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shifts + base[None]).reshape(-1, 4)


def match_boxes(
    iou: Float[Array, "m n"],
    valid: Bool[Array, " m"],
    *,
    foreground: float,
    background: float,
    low_quality: bool = False,
) -> Int[Array, " n"]:
    """Return each candidate's object, or BACKGROUND, or IGNORED between the thresholds.

    Args:
      iou: of every object with every candidate.
      valid: which objects are there; the others are padding.
      foreground: the least overlap of a match.
      background: what the overlap with all objects must lie below to be background.
      low_quality: also match, whatever the overlap, the candidates that overlap an object most
        (each with the object that it overlaps most), so that no object goes without. An object
        that overlaps no candidate has none: where all are zero, none is the largest.
    """
    iou = jnp.where(valid[:, None], iou, 0)
    best, best_iou = iou.argmax(0), iou.max(0)
    index = jnp.where(best_iou >= foreground, best, IGNORED)
    index = jnp.where(best_iou < background, BACKGROUND, index)
    if low_quality:
        most = iou.max(1, keepdims=True)
        index = jnp.where(((iou == most) & (most > 0)).any(0), best, index)
    # without objects, argmax would name the first
    return jnp.where(valid.any(), index, BACKGROUND)


def balanced_sample(
    matches: Int[Array, " n"],
    priorities: Float[Array, " n"],
    count: int,
    positive_fraction: float,
) -> tuple[Int[Array, " slots"], Bool[Array, " slots"]]:
    """Return the indices of `count` candidates, at most that fraction positive, and which count.

    Positives (an object's number in matches) come first, then background; both in the order of
    falling priority. What is missing of positives is filled with background; IGNORED ones are
    never drawn, so there may be fewer than count; there are never more slots than candidates.

    Args:
      priorities: in 0..1; random ones make the sample a random one.
    """
    slots = min(count, matches.shape[0])
    places = jnp.arange(slots)

    def drawn(wanted: Array) -> tuple[Array, Array]:
        value, index = jax.lax.top_k(jnp.where(wanted, priorities, -1), slots)
        return index, (value >= 0).sum()

    positives, available = drawn(matches >= 0)
    positive_count = jnp.minimum(available, int(count * positive_fraction))
    negatives, negative_count = drawn(matches == BACKGROUND)
    index = jnp.where(
        places < positive_count, positives, negatives[jnp.maximum(places - positive_count, 0)]
    )
    return index, places < positive_count + negative_count


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    threshold: float | Float[Array, ""],
    classes: Int[Array, " n"] | None = None,
) -> Bool[Array, " n"]:
    """Return which boxes greedy non-maximum suppression keeps: exactly, in a static shape.

    From the highest score to the lowest (of equal ones the first), a box goes if it overlaps a
    kept one by more than the threshold, or a kept one of its class where classes are given.
    Greedy suppression is the one solution of keep_i = valid_i and no better j is kept that
    overlaps i. Solving it anew from its last state settles the k best boxes in k rounds; most
    inputs need a few.
    """
    order = jnp.argsort(-jnp.where(valid, scores, -jnp.inf), stable=True)
    valid, sorted_boxes = valid[order], boxes[order]
    suppresses = jnp.triu(box_iou(sorted_boxes, sorted_boxes) > threshold, k=1)
    if classes is not None:
        suppresses &= classes[order][:, None] == classes[order][None]

    def settled_more(state: tuple[Array, Array]) -> tuple[Array, Array]:
        _, keep = state
        return keep, valid & ~(suppresses & keep[:, None]).any(0)

    start = (jnp.zeros_like(valid), valid)
    _, keep = jax.lax.while_loop(lambda state: (state[0] != state[1]).any(), settled_more, start)
    return jnp.zeros_like(keep).at[order].set(keep)
