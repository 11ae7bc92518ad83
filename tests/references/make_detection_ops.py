"""Write detection_ops.npz: torchvision's own operations on random and degenerate boxes.

Run from the repository's root, where torch and torchvision are installed:
`python -m tests.references.make_detection_ops`.
"""

from pathlib import Path

import numpy as np
import torch
from torchvision import ops
from torchvision.models.detection import _utils, anchor_utils, roi_heads

from tests.references.detection_boxes import BASE_SIZES, random_boxes


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array))


def box_cases(rng: np.random.Generator) -> dict[str, np.ndarray]:
    boxes, others = random_boxes(rng, 40), random_boxes(rng, 30)
    coder = _utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    deltas = rng.normal(size=(30, 4)) * (5, 5, 30, 30)
    anchors = anchor_utils.AnchorGenerator((BASE_SIZES,), ((0.5, 1.0, 2.0),))
    grid = anchors.grid_anchors([(3, 5)], [[tensor(np.array(16)), tensor(np.array(8))]])[0]
    iou = ops.box_iou(tensor(boxes[:7]), tensor(others))
    return {
        "boxes": boxes,
        "others": others,
        "iou": ops.box_iou(tensor(boxes), tensor(others)).numpy(),
        "clipped": ops.clip_boxes_to_image(tensor(boxes), (40, 60)).numpy(),
        "encoded": coder.encode_single(tensor(boxes[:30]), tensor(others)).numpy(),
        "deltas": deltas,
        "decoded": coder.decode_single(tensor(deltas), tensor(others)).numpy(),
        "anchors": grid.numpy(),
        "matches": _utils.Matcher(0.5, 0.3, allow_low_quality_matches=True)(iou.clone()).numpy(),
        "strict_matches": _utils.Matcher(0.5, 0.5)(iou.clone()).numpy(),
    }


def nms_cases(rng: np.random.Generator) -> dict[str, np.ndarray]:
    boxes = random_boxes(rng, 300)
    boxes[50:60] = boxes[:10]  # identical ones, whose overlap is 1
    boxes[60:70, 2:] = boxes[60:70, :2]  # of no area
    scores = rng.integers(0, 40, 300) / 40  # many ties
    classes = rng.integers(0, 4, 300)
    kept = {
        f"kept/{t}": ops.nms(tensor(boxes), tensor(scores), t).numpy() for t in (0.0, 0.3, 0.5, 0.7)
    }
    by_class = ops.boxes._batched_nms_vanilla(tensor(boxes), tensor(scores), tensor(classes), 0.5)
    return kept | {
        "nms_boxes": boxes,
        "nms_scores": scores,
        "nms_classes": classes,
        "kept_by_class": by_class.numpy(),
    }


def roi_cases(rng: np.random.Generator) -> dict[str, np.ndarray]:
    features = rng.normal(size=(9, 13, 3))
    planes = tensor(features).permute(2, 0, 1)[None].contiguous()
    boxes = random_boxes(rng, 24, side=60)  # at a scale of 1/4 they reach over the map's edges
    boxes[:4] = [[5, 5, 5, 5], [10.5, 3, 11, 30], [-40, -30, -20, -10], [200, 200, 240, 230]]
    rois = [tensor(boxes)]
    arrays = {"features": features, "rois": boxes}
    for name, ratio, aligned in [("2", 2, False), ("3_aligned", 3, True), ("adaptive", -1, False)]:
        out = ops.roi_align(planes, rois, (4, 4), 0.25, ratio, aligned)
        arrays[f"align_{name}"] = out.permute(0, 2, 3, 1).numpy()
    arrays["pool"] = ops.roi_pool(planes, rois, (4, 4), 0.25).permute(0, 2, 3, 1).numpy()

    wide = random_boxes(rng, 30, side=128)
    wide *= np.exp(rng.uniform(-2, 3, (30, 1)))
    maps = {str(i): rng.normal(size=(2 ** (5 - i), 2 ** (5 - i), 2)) for i in range(4)}
    pooler = ops.MultiScaleRoIAlign([*maps], 3, 2)
    planes = {name: tensor(each).permute(2, 0, 1)[None] for name, each in maps.items()}
    out = pooler(planes, [tensor(wide)], [(128, 128)])
    arrays |= {f"map_{name}": each for name, each in maps.items()}
    arrays |= {"wide_boxes": wide, "pyramid": out.permute(0, 2, 3, 1).numpy()}

    masks, places = rng.uniform(size=(12, 7, 7)), random_boxes(rng, 12)
    pasted = roi_heads.paste_masks_in_image(tensor(masks)[:, None], tensor(places), (48, 64))
    return arrays | {"masks": masks, "places": places, "pasted": pasted[:, 0].numpy()}


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    arrays = box_cases(rng) | nms_cases(rng) | roi_cases(rng)
    np.savez_compressed(Path(__file__).with_name("detection_ops.npz"), **arrays)
    print({name: array.shape for name, array in arrays.items()})
