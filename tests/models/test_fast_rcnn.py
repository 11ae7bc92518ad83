"""Detectors whose regions come with the images: what they cut, and what they say of it."""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import create_model
from cnn_jax.models import fast_rcnn
from cnn_jax.models.faster_rcnn import Proposals, cut_regions
from tests.models.tracing import drawn, parameters, shapes, variables

SETTINGS = fast_rcnn.SMALL._replace(head_features=8, suppressed=24, detections=6)


def test_parameters_of_the_published_form():
    """VGG16's convolutions and two dense layers, and two heads for VOC's 20 classes."""
    vgg16, its_head = 138_357_544, 4096 * 1000 + 1000
    assert parameters("fastrcnn_vgg16", 64) == vgg16 - its_head + 4096 * 21 * 5 + 21 * 5


def test_the_published_form_pools_a_map_of_stride_16():
    found = shapes("fastrcnn_vgg16", 64)
    assert found["backbone/relu5_3"] == (4, 4, 512)
    assert found["box_head/flatten"] == (7 * 7 * 512,)


def test_regions_are_pooled_from_the_first_map_by_its_stride():
    x = jnp.arange(64.0).reshape(1, 8, 8, 1)
    boxes = jnp.array([[[0, 0, 24, 24], [16, 32, 56, 56]]], float)  # ends count: rows 0 to 3
    found = cut_regions([x], boxes, 1, SETTINGS)
    np.testing.assert_array_equal(found.ravel(), [3 * 8 + 3, 7 * 8 + 7])


def test_dropout_is_the_head_s_in_training_alone():
    settings = SETTINGS._replace(head=fast_rcnn.PUBLISHED.head)

    def run(scope, x):
        return settings.head(scope, x, 8)

    x = np.ones((1, 2, 2, 2, 3), np.float32)
    _, made = flax.core.init(run)(jax.random.key(0), x)

    def apply(train):
        call = flax.core.apply(run, flags={"train": train})
        return call(made, x, rngs={"dropout": jax.random.key(1)})[0]

    evaluated, trained = apply(False), apply(True)
    np.testing.assert_array_equal(evaluated[0], evaluated[1])
    assert (trained[0] != trained[1]).any()


@pytest.fixture(scope="module")
def run():
    """(images, proposals) -> Detections of a small network of drawn variables."""
    model = create_model("fastrcnn_resnet10", 4)
    made = drawn(variables("fastrcnn_resnet10", 32, num_classes=4))
    settings = fast_rcnn.SMALL._replace(least_score=0.1, suppressed=24, detections=6)

    @jax.jit
    def detect(images, proposals):
        call = flax.core.apply(fast_rcnn.fast_rcnn)
        return call(made, images, model.num_classes, proposals=proposals, settings=settings)

    return detect


IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
BOXES = np.float32([[[2, 2, 20, 20], [8, 4, 30, 31], [0, 0, 9, 9]]] * 2)


@pytest.mark.slow
def test_only_what_was_proposed_is_found(run):
    valid = np.array([[True, True, False], [False] * 3])
    found = run(IMAGES, Proposals(BOXES, valid))
    assert found.valid[0].any()
    assert not found.valid[1].any()
    padded = BOXES.copy()
    padded[~valid] = 0
    again = run(IMAGES, Proposals(padded, valid))
    jax.tree.map(np.testing.assert_array_equal, found, again)


def test_without_proposals_the_image_is_the_region():
    whole = fast_rcnn.whole_images(np.array([[32, 24]]))
    np.testing.assert_array_equal(whole.boxes, [[[0, 0, 24, 32]]])
    model = create_model("fastrcnn_resnet10", 4)
    made = variables("fastrcnn_resnet10", 32, num_classes=4)
    found = jax.eval_shape(model.apply, made, IMAGES)
    assert found.boxes.shape == (2, 3, 4)  # one region, of three classes
