"""Two images with objects, and the samples' priorities: what both sides of the parity test see."""

import numpy as np

CANVAS = 128
SIZES = np.array([[128, 128], [128, 96]])  # the second image does not fill its canvas
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
OBJECTS = (3, 2)
ANCHORS = 3 * sum((CANVAS // stride) ** 2 for stride in (4, 8, 16, 32, 64))
# fewer than published, so that the test is quick
PROPOSALS, REGIONS, DETECTIONS = 200, 64, 12
C4_PROPOSALS, C4_REGIONS = 20, 8  # a stage of the network runs on each
# digests of the gradients of these tensors are compared
GRADIENTS = (
    "backbone.body.conv1.weight",
    "backbone.body.layer4.0.downsample.0.weight",
    "backbone.fpn.inner_blocks.0.0.weight",
    "backbone.fpn.layer_blocks.3.0.bias",
    "rpn.head.conv.0.0.weight",
    "rpn.head.bbox_pred.weight",
    "roi_heads.box_head.fc6.weight",
    "roi_heads.box_head.layer4.0.conv1.weight",
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_predictor.conv5_mask.weight",
    "roi_heads.mask_predictor.mask_fcn_logits.bias",
)

# images of odd sizes, the sides they are scaled to, and the canvas that holds all of them
ODD_SIZES = ((97, 131), (211, 60), (75, 75))
SHORTER, LONGER = 128, 200
ODD_CANVAS = (224, 192)


def odd_images() -> list[np.ndarray]:
    """Return images in 0..1 of ODD_SIZES: noise with an ellipse."""
    rng, images = np.random.default_rng(7), []
    for height, width in ODD_SIZES:
        y, x = np.mgrid[:height, :width]
        ellipse = (3 * y / height - 1.5) ** 2 + (3 * x / width - 1.2) ** 2 < 1
        colour = np.where(ellipse[..., None], rng.uniform(0.2, 0.8, 3), 0.5)
        images.append(np.clip(colour + 0.1 * rng.standard_normal((height, width, 3)), 0, 1))
    return images


def scene() -> dict[str, np.ndarray]:
    """Return images in 0..1 (0 beside the image), objects padded to 3, regions and priorities."""
    rng = np.random.default_rng(6)
    images = np.zeros((2, CANVAS, CANVAS, 3))
    boxes, labels = np.zeros((2, 3, 4)), np.zeros((2, 3), int)
    masks, valid = np.zeros((2, 3, CANVAS, CANVAS), bool), np.zeros((2, 3), bool)
    y, x = np.mgrid[:CANVAS, :CANVAS]
    for i, ((height, width), count) in enumerate(zip(SIZES, OBJECTS, strict=True)):
        inside = (y < height) & (x < width)
        images[i][inside] = 0.5 + 0.1 * rng.standard_normal((inside.sum(), 3))
        for j in range(count):
            half = rng.uniform(10, 30, 2)
            centre = rng.uniform(half, [width - 20, height - 20])
            low = np.maximum(centre - half, 0)
            high = np.minimum(centre + half, [width, height])
            boxes[i, j] = *low, *high
            ellipse = ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 < 1
            masks[i, j] = ellipse & inside
            images[i][masks[i, j]] += rng.uniform(-0.4, 0.4, 3)
            labels[i, j], valid[i, j] = rng.integers(1, 91), True
    regions = rng.uniform(0, 60, (2, 6, 4))
    regions[..., 2:] += rng.uniform(2, 68, (2, 6, 2))
    return {
        "images": images,
        "boxes": boxes,
        "labels": labels,
        "valid": valid,
        "masks": masks,
        "regions": regions,
        "anchor_priorities": rng.uniform(size=(2, ANCHORS)),
        "region_priorities": rng.uniform(size=(2, PROPOSALS + 3)),
    }
