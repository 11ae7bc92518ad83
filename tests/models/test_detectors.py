"""The same outputs as torchvision's Faster and Mask R-CNN, given the same weights and samples.

Both sides are filled by the rule of tests/references/parity.py and see the images of
tests/references/detection_scene.py, one of which does not fill its canvas. `pytest -s` prints the
largest differences.
"""

import functools
from pathlib import Path

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnn_jax import create_model, ops
from cnn_jax.models import faster_rcnn
from cnn_jax.models.registry import MODELS
from cnn_jax.tasks import detection
from cnn_jax.weights import convert
from tests.models.tracing import parameters, shapes, variables
from tests.references import detection_scene, parity

REFERENCES = Path(__file__).parents[1] / "references"
STORED = {
    **np.load(REFERENCES / "detection.npz"),
    **np.load(REFERENCES / "detection_c4.npz"),
}
LOSS_NAMES = {  # torchvision's
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "classifier": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}
DETECTORS = [  # the first is a part of the second
    pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.large),
    pytest.param("maskrcnn_resnet50_fpn", marks=pytest.mark.slow),
    pytest.param("fasterrcnn_resnet50_c4", marks=pytest.mark.slow),
]


@functools.cache
def filled(name: str) -> dict:
    """Return float64 variables, filled by the rule under their published names."""
    template = variables(name, detection_scene.CANVAS)
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(0.0, leaf.shape), template)
    published = convert.to_published(MODELS[name], zeros)
    tensors = {key: parity.fill(key, tensor.shape) for key, tensor in published.items()}
    return convert.from_published(MODELS[name], tensors, template)


def settings_of(name: str) -> faster_rcnn.Settings:
    published = MODELS[name].function.keywords["settings"]
    proposals, regions = detection_scene.PROPOSALS, detection_scene.REGIONS
    if name.endswith("c4"):
        proposals, regions = detection_scene.C4_PROPOSALS, detection_scene.C4_REGIONS
    return published._replace(
        proposals=(proposals,) * 2,
        regions_sampled=regions,
        detections=detection_scene.DETECTIONS,
    )


def scene(dtype) -> dict[str, np.ndarray]:
    """Return the scene with its images normalised, zeros beside them, in this dtype."""
    given = detection_scene.scene()
    images = (given["images"] - detection_scene.MEAN) / detection_scene.STD
    for image, (height, width) in zip(images, detection_scene.SIZES, strict=True):
        image[height:], image[:, width:] = 0, 0
    given["images"] = images
    return {
        key: array.astype(dtype) if array.dtype == np.float64 else array
        for key, array in given.items()
    }


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def show(name: str, what: str, difference: float) -> None:
    print(f"{name}: {what} {difference:.1e}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # torchvision, FasterRCNN_ResNet50_FPN_Weights.COCO_V1 and MaskRCNN_...: num_params
        ("fasterrcnn_resnet50_fpn", 41_755_286),
        ("maskrcnn_resnet50_fpn", 44_401_393),
        # FasterRCNN with the modules of make_detection.build_c4: sum of numel
        ("fasterrcnn_resnet50_c4", 33_902_290),
    ],
)
def test_parameters(name, expected):
    assert parameters(name, 128) == expected


def outputs(scope, images, regions, num_classes, settings):
    """What the heads make of all anchors and of the given regions."""
    maps, objectness, deltas, _ = faster_rcnn.first_stage(scope, images, settings)
    raw = {
        "objectness": jnp.concatenate(objectness, 1)[:, ::7],
        "rpn_deltas": jnp.concatenate(deltas, 1)[:, ::7],
    }
    raw["class_logits"], raw["box_deltas"] = faster_rcnn.region_head(
        scope, maps, regions, num_classes, settings
    )
    if settings.mask_layers:
        raw["mask_logits"] = faster_rcnn.mask_head(scope, maps, regions, num_classes, settings)
        raw["mask_logits"] = raw["mask_logits"][..., ::30]
    return raw


def compare_detections(name: str, found: faster_rcnn.Detections) -> None:
    assert found.exact.all()
    for i, (height, width) in enumerate(detection_scene.SIZES):
        there = np.asarray(found.valid[i])
        boxes, scores, labels = (np.asarray(x[i])[there] for x in found[:3])
        np.testing.assert_array_equal(labels, STORED[f"{name}/found_labels/{i}"])
        for what, ours in (("boxes", boxes), ("scores", scores)):
            theirs = STORED[f"{name}/found_{what}/{i}"]
            show(name, f"detections' {what}", np.abs(ours - theirs).max())
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
        if found.masks is not None:
            pasted = ops.paste_masks(found.masks[i], found.boxes[i], height, width)
            bits = np.unpackbits(STORED[f"{name}/found_masks/{i}"]).reshape(pasted.shape)
            assert bits.any()
            assert np.mean((np.asarray(pasted) > 0.5) != bits) < 1e-3


def losses_of(name: str, variables: dict, given: dict) -> dict:
    settings = settings_of(name)
    cells = [detection_scene.CANVAS // 2**settings.lowest_level]  # a side of the map, of one map
    if name.endswith("fpn"):
        cells = [detection_scene.CANVAS // stride for stride in (4, 8, 16, 32, 64)]
    anchors = 3 * len(settings.anchor_sizes[0]) * sum(side**2 for side in cells)
    candidates = settings.proposals[0] + given["boxes"].shape[1]
    priorities = detection.Priorities(
        given["anchor_priorities"][:, :anchors], given["region_priorities"][:, :candidates]
    )
    return flax.core.apply(detection.losses)(
        variables,
        given["images"],
        detection.Truth(*(given[key] for key in ("boxes", "labels", "valid", "masks"))),
        priorities,
        num_classes=91,
        settings=settings,
        sizes=jnp.asarray(detection_scene.SIZES),
    )


def compare_losses(name: str, losses: dict) -> None:
    assert set(losses) == {key for key in LOSS_NAMES if f"{name}/{LOSS_NAMES[key]}" in STORED}
    for key, loss in losses.items():
        theirs = STORED[f"{name}/{LOSS_NAMES[key]}"]
        show(name, f"float64 loss {key}", abs(float(loss) / theirs - 1))
        # torchvision computes the objectness loss in float32 whatever the model's dtype
        np.testing.assert_allclose(loss, theirs, rtol=1e-6 if key == "objectness" else 1e-11)


@pytest.mark.parametrize("name", DETECTORS)
def test_equals_torchvisions(name):
    """Raw heads, the detections of the whole, and every loss with injected samples, in float64."""
    model, settings = create_model(name), settings_of(name)
    given = scene(np.float64)

    @jax.jit
    def run(variables, given):
        raw = flax.core.apply(outputs)(
            variables, given["images"], given["regions"], model.num_classes, settings
        )
        found = flax.core.apply(faster_rcnn.faster_rcnn)(
            variables,
            given["images"],
            model.num_classes,
            sizes=detection_scene.SIZES,
            settings=settings,
        )
        return raw, found, losses_of(name, variables, given)

    with jax.enable_x64(True):
        raw, found, losses = run(filled(name), given)
        for what, ours in raw.items():
            theirs = STORED[f"{name}/{what}"]
            difference = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
            show(name, f"float64 {what}", difference)
            assert difference < 1e-9, what
        compare_detections(name, found)
    compare_losses(name, losses)


@pytest.mark.large
@pytest.mark.parametrize("name", DETECTORS)
def test_gradients_equal_torchvisions(name):
    given = scene(np.float64)

    def total(params, rest):
        losses = losses_of(name, {"params": params, **rest}, given)
        return sum(losses.values()), losses

    with jax.enable_x64(True):
        variables = filled(name)
        rest = {"batch_stats": variables["batch_stats"]}
        gradients, losses = jax.jit(jax.grad(total, has_aux=True))(variables["params"], rest)
    compare_losses(name, losses)
    published = convert.to_published(MODELS[name], {"params": gradients})
    compared = 0
    for tensor in detection_scene.GRADIENTS:
        if f"{name}/gradient/{tensor}" in STORED:
            ours = published[tensor]
            digest = np.sum(ours * parity.fill(f"{tensor}.projection", ours.shape))
            theirs = STORED[f"{name}/gradient/{tensor}"]
            show(name, f"float64 gradient of {tensor}", abs(digest / theirs - 1))
            np.testing.assert_allclose(digest, theirs, rtol=1e-5)
            compared += 1
    assert compared >= (5 if name.endswith("c4") else 8)


@pytest.mark.large
def test_losses_in_float32_equal_torchvisions():
    name = "maskrcnn_resnet50_fpn"
    run = jax.jit(lambda variables, given: losses_of(name, variables, given))
    losses = run(cast(filled(name), np.float32), scene(np.float32))
    for key, loss in losses.items():
        theirs = STORED[f"{name}/{LOSS_NAMES[key]}"]
        show(name, f"float32 loss {key}", abs(float(loss) / theirs - 1))
        np.testing.assert_allclose(loss, theirs, rtol=1e-4)


def test_published_files_of_old_names_are_read():
    """torchvision's COCO_V1 files were written before the convolutions became blocks."""
    old = {
        "backbone.fpn.inner_blocks.0.weight": "backbone.fpn.inner_blocks.0.0.weight",
        "backbone.fpn.layer_blocks.3.bias": "backbone.fpn.layer_blocks.3.0.bias",
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "roi_heads.mask_head.mask_fcn1.weight": "roi_heads.mask_head.0.0.weight",
        "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
    }
    for before, now in old.items():
        assert faster_rcnn.current_name(before) == now
        assert faster_rcnn.current_name(now) == now
    name = "backbone.body.layer1.0.conv1.weight"
    assert faster_rcnn.current_name(name) == name


def test_frozen_norms_are_no_parameters():
    found = variables("fasterrcnn_resnet50_fpn", 128)
    assert not any("bn" in path for path in flatten_dict(found["params"]))
    assert set(found["batch_stats"]["backbone"]["body"]["stem"]["bn"]) == {
        "scale",
        "bias",
        "mean",
        "var",
    }


def test_on_one_map_the_networks_last_stage_is_the_head():
    """He et al. 2015, appendix A; of small images, one stage earlier."""
    found = shapes("fasterrcnn_resnet50_c4", 64)
    assert found["backbone/body/stage3_block6"] == (4, 4, 1024)
    assert found["box_head/stage4_block3"] == (7, 7, 2048)
    assert found["box_head/pool"] == (2048,)
    found = shapes("fasterrcnn_resnet14_c3", 64)
    assert found["backbone/body/stage2_block2"] == (8, 8, 64)
    assert found["box_head/stage3_block2"] == (7, 7, 128)
    assert found["rpn/cls_logits"] == (8, 8, 24)
