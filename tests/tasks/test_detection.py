"""A tiny detector's losses and inference on every kind of truth there is, each one program."""

from functools import partial

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnn_jax.layers import conv
from cnn_jax.models import faster_rcnn
from cnn_jax.models.faster_rcnn import Settings
from cnn_jax.tasks import detection
from cnn_jax.tasks.detection import Truth

pytestmark = pytest.mark.slow

CANVAS, CLASSES = 32, 4


def backbone(scope, images):
    """One map of stride 4."""
    return [scope.child(conv, "conv")(images, 4, size=3, stride=4)]


SETTINGS = Settings(
    backbone=backbone,
    region_maps=1,
    anchor_sizes=((8, 16),),
    anchors_sampled=16,
    candidates=(20, 20),
    proposals=(10, 10),
    region_size=2,
    head_features=8,
    regions_sampled=8,
    suppressed=30,
    detections=6,
    least_score=0.2,
    mask_layers=1,
    mask_features=2,
    mask_size=2,
)
IMAGES = np.random.default_rng(0).normal(size=(2, CANVAS, CANVAS, 3)).astype(np.float32)
SIZES = np.array([[32, 32], [32, 24]])
KEY = jax.random.key(0)


def truth(boxes, slots: int = 3, valid=None) -> Truth:
    """Return each image's boxes padded to the slots, of class 1 on, with filled masks."""
    out = np.zeros((2, slots, 4), np.float32)
    there = np.zeros((2, slots), bool)
    for i, each in enumerate(boxes):
        out[i, : len(each)] = np.reshape(each, (-1, 4))
        there[i, : len(each)] = True
    y, x = np.mgrid[:CANVAS, :CANVAS]
    corners = out[..., None, None]
    masks = (
        (x >= corners[:, :, 0])
        & (y >= corners[:, :, 1])
        & (x < corners[:, :, 2])
        & (y < corners[:, :, 3])
    )
    labels = np.broadcast_to(1 + np.arange(slots) % (CLASSES - 1), (2, slots))
    return Truth(out, labels, there if valid is None else valid, masks)


USUAL = truth([[[2, 3, 20, 18], [10, 10, 30, 31]], [[4, 4, 12, 14]]])


def losses(variables, images, truth, draw, sizes):
    return flax.core.apply(detection.losses)(
        variables, images, truth, draw, num_classes=CLASSES, settings=SETTINGS, sizes=sizes
    )


@pytest.fixture(scope="module")
def variables():
    init = partial(faster_rcnn.faster_rcnn, num_classes=CLASSES, settings=SETTINGS)
    _, made = jax.jit(flax.core.init(init))(KEY, IMAGES)
    return flax.core.unfreeze(made)


@pytest.fixture(scope="module")
def step():
    """(losses, gradients) of variables, truth and what decides the samples: one program."""

    @jax.jit
    def run(variables, truth, draw):
        def total(variables):
            terms = losses(variables, IMAGES, truth, draw, SIZES)
            return sum(terms.values()), terms

        gradients, terms = jax.grad(total, has_aux=True)(variables)
        return terms, gradients

    return run


@pytest.fixture(scope="module")
def detect():
    @jax.jit
    def run(variables, images, sizes):
        apply = flax.core.apply(faster_rcnn.faster_rcnn)
        return apply(variables, images, CLASSES, sizes=sizes, settings=SETTINGS)

    return run


PRIORITIES = detection.Priorities(
    *(np.random.default_rng(1).uniform(size=(2, n)).astype(np.float32) for n in (384, 13))
)


def is_finite(tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "boxes",
    [
        [[], []],
        [[[2, 3, 20, 18]], []],
        [[[5, 5, 5, 5], [3, 4, 9, 4]], [[9, 9, 3, 3]]],  # of no area, inside out
        [[[100, 100, 120, 140], [-30, -30, -20, -20]], [[26, 2, 31, 9]]],  # outside the image
        [[[-1e6, -1e6, 1e6, 1e6]], [[0, 0, 32, 32]]],
        [[[2, 3, 20, 18]] * 3, [[4, 4, 12, 14]] * 3],  # the same object three times
    ],
)
def test_losses_and_gradients_are_finite_whatever_the_boxes(step, variables, boxes):
    terms, gradients = step(variables, truth(boxes), PRIORITIES)
    assert set(terms) == {"objectness", "rpn_box", "classifier", "box", "mask"}
    assert is_finite((terms, gradients))
    assert terms["objectness"] > 0


def test_boxes_of_which_nothing_is_left_are_no_objects(step, variables):
    """An image with them alone is an image of background."""
    useless = truth([[[5, 5, 5, 5], [100, 100, 120, 140]], [[26, 2, 31, 9]]])
    none = truth([[], []])
    found, _ = step(variables, useless, PRIORITIES)
    expected, _ = step(variables, none, PRIORITIES)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    assert found["rpn_box"] == found["box"] == found["mask"] == 0


def test_what_stands_in_the_padding_changes_nothing(step, variables):
    terms, gradients = step(variables, USUAL, PRIORITIES)
    rubbish = np.where(USUAL.valid[..., None], USUAL.boxes, np.nan).astype(np.float32)
    again, same = step(variables, USUAL._replace(boxes=rubbish), PRIORITIES)
    jax.tree.map(np.testing.assert_array_equal, (terms, gradients), (again, same))


def test_every_truth_runs_in_one_program(step, variables):
    step(variables, USUAL, PRIORITIES)
    before = step._cache_size()
    step(variables, truth([[], [[1, 1, 9, 9]]]), PRIORITIES)
    assert step._cache_size() == before == 1


@pytest.mark.slow
def test_a_thousand_objects(variables):
    rng = np.random.default_rng(0)
    low = rng.uniform(-4, 30, (2, 1000, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 12, (2, 1000, 2))], -1)
    found = jax.jit(losses)(variables, IMAGES, truth(boxes, 1000), KEY, SIZES)
    assert is_finite(found)


def test_a_key_draws_the_samples(variables):
    run = jax.jit(losses)
    one, same, other = (
        run(variables, IMAGES, USUAL, jax.random.key(seed), SIZES)["classifier"]
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_a_batch_spread_over_devices_has_the_losses_of_one_device(variables, step):
    expected, _ = step(variables, USUAL, PRIORITIES)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    spread = partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("data")))
    images, objects, draw, sizes = jax.tree.map(spread, (IMAGES, USUAL, PRIORITIES, SIZES))
    whole = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    found = jax.jit(losses)(whole, images, objects, draw, sizes)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_detections_lie_in_the_image_surest_first_and_the_rest_is_empty(detect, variables):
    found = detect(variables, IMAGES, SIZES)
    assert found.boxes.shape == (2, 6, 4)
    assert found.masks.shape == (2, 6, 4, 4)
    for i, (height, width) in enumerate(SIZES):
        boxes = np.asarray(found.boxes[i])
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.valid.any()
    assert (found.labels[found.valid] > 0).all()
    assert (np.asarray(found.scores)[~found.valid] == 0).all()
    assert is_finite(found)


def test_a_canvas_without_an_image_has_no_detections(detect, variables):
    found = detect(variables, 0 * IMAGES, np.array([[0, 0], [32, 24]]))
    assert not found.valid[0].any()
    assert is_finite(found)
    assert detect._cache_size() == 1  # the sizes are no part of the program


def test_detections_say_when_too_few_boxes_entered_the_suppression():
    """One place: the surest boxes are of one class and suppress each other."""
    logits = np.zeros((1, 8, 3), np.float32)
    logits[..., 1] = 4 + np.linspace(0, 0.1, 8)
    proposals = np.tile(np.float32([4, 4, 20, 20]), (1, 8, 1))
    settings = SETTINGS._replace(least_score=0.001, detections=2)
    given = (logits, np.zeros((1, 8, 3, 4), np.float32), proposals, np.ones((1, 8), bool))
    few = faster_rcnn.select(*given, SIZES[:1], settings._replace(suppressed=5))
    assert not few.exact[0]
    assert few.valid.sum() == 1
    enough = faster_rcnn.select(*given, SIZES[:1], settings._replace(suppressed=9))
    assert enough.exact[0]
    assert set(np.asarray(enough.labels[0])) == {1, 2}


def test_background_far_from_every_object_is_not_learnt_from_where_the_settings_say():
    """Girshick 2015, section 2.3: overlaps in [.1, .5)."""
    proposals = np.float32([[[2, 3, 20, 18], [2, 3, 8, 18], [2, 3, 3, 18], [24, 24, 30, 30]]] * 2)
    valid = np.ones((2, 4), bool)
    settings = SETTINGS._replace(region_background=0.1, regions_sampled=7)
    regions = detection.sample_regions(proposals, valid, USUAL, np.ones((2, 7)), settings)
    drawn = {tuple(box) for box in np.asarray(regions.boxes[0])[np.asarray(regions.counted[0])]}
    assert (2, 3, 20, 18) in drawn  # an object
    assert (2, 3, 8, 18) in drawn  # a third of one
    assert (2, 3, 3, 18) not in drawn  # an eighteenth
    everything = SETTINGS._replace(regions_sampled=7)
    regions = detection.sample_regions(proposals, valid, USUAL, np.ones((2, 7)), everything)
    assert (2, 3, 3, 18) in {tuple(box) for box in np.asarray(regions.boxes[0])}


def test_given_proposals_take_the_place_of_the_first_stage(variables):
    given = faster_rcnn.Proposals(USUAL.boxes, USUAL.valid)
    run = partial(flax.core.apply(detection.losses), num_classes=CLASSES, settings=SETTINGS)
    terms = jax.jit(run)(variables, IMAGES, USUAL, KEY, sizes=SIZES, given=given)
    assert set(terms) == {"classifier", "box", "mask"}
    assert is_finite(terms)


def test_a_masks_target_is_the_part_of_each_bin_that_it_covers():
    masks = np.zeros((1, 1, 16, 16), bool)
    masks[..., :8] = True
    boxes = np.array([[[0, 0, 16, 16.0], [0, 0, 8, 8], [8, 0, 16, 16]]])
    target = detection.mask_targets(masks, boxes, np.zeros((1, 3), int), 4)[0]
    assert (target[0, :, :2] > 0.8).all()
    assert (target[0, :, 3] == 0).all()
    assert (target[1, :, :3] == 1).all()
    assert (target[2, :, 1:] == 0).all()


def test_smooth_l1_is_a_parabola_then_a_line():
    x = jnp.array([0.0, 0.1, -0.1, 1 / 9, 2.0])
    expected = [0, 0.045, 0.045, 1 / 18, 2 - 1 / 18]
    np.testing.assert_allclose(detection.smooth_l1(x, 1 / 9), expected, rtol=1e-6)
