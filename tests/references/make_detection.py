"""Write detection.npz: torchvision's Faster and Mask R-CNN, filled by the rule of parity.py.

And detection_c4.npz: its Faster R-CNN on one map, whose head is the network's last stage.

Raw heads, losses with injected samples and digests of their gradients, and final detections, all
in float64. Run from the repository's root, where torch and torchvision are installed:
`python -m tests.references.make_detection`.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision.models import _utils as layers
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN, MaskRCNN, _utils, backbone_utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from tests.references import parity
from tests.references.detection_scene import (
    C4_PROPOSALS,
    C4_REGIONS,
    DETECTIONS,
    GRADIENTS,
    OBJECTS,
    PROPOSALS,
    REGIONS,
    SIZES,
    scene,
)


def fewer(proposals: int, regions: int) -> dict[str, int]:
    return {
        "rpn_post_nms_top_n_train": proposals,
        "rpn_post_nms_top_n_test": proposals,
        "box_batch_size_per_image": regions,
        "box_detections_per_img": DETECTIONS,
    }


def build(kind: type) -> torch.nn.Module:
    """Return the published detector (frozen norms, whose epsilon is 0) with fewer regions."""
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    model = kind(
        backbone_utils._resnet_fpn_extractor(body, 5), 91, **fewer(PROPOSALS, REGIONS)
    ).double()
    _utils.overwrite_eps(model, 0.0)
    return filled(model)


class OneMap(torch.nn.Module):
    """A residual network's third stage, stride 16."""

    out_channels = 1024

    def __init__(self, body: torch.nn.Module):
        super().__init__()
        self.body = layers.IntermediateLayerGetter(body, {"layer3": "0"})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.body(x)


class LastStage(torch.nn.Module):
    """Its fourth stage on every region, and the mean."""

    def __init__(self, body: torch.nn.Module):
        super().__init__()
        self.layer4 = body.layer4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer4(x).mean((2, 3))


def build_c4() -> torch.nn.Module:
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    model = FasterRCNN(
        OneMap(body),
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=LastStage(body),
        box_predictor=FastRCNNPredictor(2048, 91),
        **fewer(C4_PROPOSALS, C4_REGIONS),
    )
    return filled(model.double())


def filled(model: torch.nn.Module) -> torch.nn.Module:
    model.transform.resize = lambda image, target: (image, target)  # images are of their size
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.from_numpy(parity.fill(name, tuple(tensor.shape))))
    return model


class Sampler:
    """Draws by given priorities, as ours does; candidate i has the priority of places[i]."""

    def __init__(self, count: int, fraction: float, priorities: np.ndarray, places):
        self.count, self.positives = count, int(count * fraction)
        self.priorities, self.places = torch.from_numpy(priorities), places

    def __call__(self, labels: list[torch.Tensor]):
        masks = [], []
        for i, each in enumerate(labels):
            priority = self.priorities[i][self.places(i, len(each))]
            left = self.count
            for group, wanted, most in zip(
                masks, (each >= 1, each == 0), (self.positives, None), strict=True
            ):
                index = torch.where(wanted)[0]
                order = index[priority[index].argsort(descending=True)]
                drawn = order[: left if most is None else most]
                left -= len(drawn)
                group.append(torch.zeros_like(each, dtype=torch.uint8).index_fill_(0, drawn, 1))
        return masks


def proposals_then_objects(proposals: int, image: int, candidates: int) -> np.ndarray:
    """Ours has room for so many proposals, the objects behind them; here both are packed."""
    found = candidates - OBJECTS[image]
    return np.concatenate([np.arange(found), proposals + np.arange(OBJECTS[image])])


def run(
    model: torch.nn.Module, proposals: int = PROPOSALS, sampled: int = REGIONS
) -> dict[str, np.ndarray]:
    given = {name: torch.from_numpy(array) for name, array in scene().items()}
    images = [
        image[:height, :width].permute(2, 0, 1)
        for image, (height, width) in zip(given["images"], SIZES, strict=True)
    ]
    targets = [
        {
            "boxes": given["boxes"][i, :count],
            "labels": given["labels"][i, :count],
            "masks": given["masks"][i, :count, :height, :width].to(torch.uint8),
        }
        for i, (count, (height, width)) in enumerate(zip(OBJECTS, SIZES, strict=True))
    ]
    model.rpn.fg_bg_sampler = Sampler(
        256, 0.5, given["anchor_priorities"].numpy(), lambda i, count: np.arange(count)
    )
    model.roi_heads.fg_bg_sampler = Sampler(
        sampled,
        0.25,
        given["region_priorities"].numpy(),
        partial(proposals_then_objects, proposals),
    )
    results = {}
    found = model.train()(images, targets)
    sum(found.values()).backward()
    results |= {name: loss.detach().numpy() for name, loss in found.items()}
    parameters = dict(model.named_parameters())
    for name in GRADIENTS:
        if name in parameters:
            gradient = parameters[name].grad.numpy()
            projection = parity.fill(f"{name}.projection", gradient.shape)
            results[f"gradient/{name}"] = np.sum(gradient * projection)

    model.eval()
    with torch.no_grad():
        batch, _ = model.transform(images)
        maps = model.backbone(batch.tensors)
        objectness, deltas = model.rpn.head(list(maps.values()))
        results["objectness"] = flat(objectness, 1)[:, ::7]
        results["rpn_deltas"] = flat(deltas, 4)[:, ::7]
        heads = model.roi_heads
        regions = list(given["regions"])
        x = heads.box_head(heads.box_roi_pool(maps, regions, batch.image_sizes))
        logits, boxes = heads.box_predictor(x)
        results["class_logits"] = logits.reshape(2, 6, 91).numpy()
        results["box_deltas"] = boxes.reshape(2, 6, 91, 4).numpy()
        if heads.mask_roi_pool is not None:
            x = heads.mask_head(heads.mask_roi_pool(maps, regions, batch.image_sizes))
            masks = heads.mask_predictor(x).reshape(2, 6, 91, 28, 28)
            results["mask_logits"] = masks[:, :, ::30].permute(0, 1, 3, 4, 2).numpy()
        heads.mask_roi_pool, pool = None, heads.mask_roi_pool  # masks before they are pasted
        for i, each in enumerate(model(images)):
            results |= {f"found_{name}/{i}": value.numpy() for name, value in each.items()}
        heads.mask_roi_pool = pool
        if pool is not None:
            for i, each in enumerate(model(images)):
                results[f"found_masks/{i}"] = np.packbits(each["masks"][:, 0].numpy() > 0.5)
    return results


def flat(maps: list[torch.Tensor], channels: int) -> np.ndarray:
    """Return [n, anchors, channels] of each map's [n, anchors a cell * channels, h, w]."""
    parts = [x.permute(0, 2, 3, 1).reshape(len(x), -1, channels) for x in maps]
    return torch.cat(parts, 1).squeeze(-1).numpy()


if __name__ == "__main__":
    arrays = {}
    for name, kind in (("fasterrcnn", FasterRCNN), ("maskrcnn", MaskRCNN)):
        results = run(build(kind))
        arrays |= {f"{name}_resnet50_fpn/{key}": value for key, value in results.items()}
        print(name, {key: value for key, value in results.items() if value.ndim == 0})
        print({key: value.shape for key, value in results.items() if value.ndim})
        print(results["found_scores/0"][:5], results["found_scores/1"][:5])
    np.savez_compressed(Path(__file__).with_name("detection.npz"), **arrays)

    results = run(build_c4(), C4_PROPOSALS, C4_REGIONS)
    print("c4", {key: value for key, value in results.items() if value.ndim == 0})
    print(results["found_scores/0"][:5], results["found_scores/1"][:5])
    arrays = {f"fasterrcnn_resnet50_c4/{key}": value for key, value in results.items()}
    np.savez_compressed(Path(__file__).with_name("detection_c4.npz"), **arrays)
