"""What a detector does wrong, by kind. After Hoiem et al. 2012 and Bolya et al. 2020 (TIDE)."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnn_jax.tasks.average_precision import Found, Objects, box_iou

KINDS = ("right", "duplicate", "wrong class", "badly placed", "on background", "missed object")


def count_kinds(
    found: Sequence[Found],
    objects: Sequence[Objects],
    *,
    least_score: float = 0.5,
    threshold: float = 0.5,
    faint: float = 0.1,
    iou: Callable[[Any, Any], np.ndarray] = box_iou,
) -> dict[str, int]:
    """Return how many detections above the least score, and objects, are of each of KINDS.

    Surest first: "right" overlaps an object of its class by the threshold, which no surer one
    does ("duplicate"); else "wrong class" overlaps another class's object by it; "badly placed"
    overlaps its class's object by `faint`. An object that no right detection has is missed.
    """
    kinds: Counter[str] = Counter()
    for detections, truth in zip(found, objects, strict=True):
        taken = np.zeros(len(truth.labels), bool)
        overlaps = iou(detections.regions, truth.regions)
        for i in np.argsort(-detections.scores, kind="stable"):
            if detections.scores[i] < least_score:
                break
            same = truth.labels == detections.labels[i]
            own = np.where(same, overlaps[i], 0)
            if (own >= threshold).any():
                best = own.argmax()
                kinds["duplicate" if taken[best] else "right"] += 1
                taken[best] = True
            elif (overlaps[i] >= threshold).any():
                kinds["wrong class"] += 1
            elif (own >= faint).any():
                kinds["badly placed"] += 1
            else:
                kinds["on background"] += 1
        kinds["missed object"] += int((~taken & ~truth.difficult).sum())
    return {kind: kinds[kind] for kind in KINDS}
