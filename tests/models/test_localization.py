"""A class head and a box head over one network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import create_model
from tests.models.tracing import parameters, shapes, variables


@pytest.mark.parametrize(("specific", "boxes"), [(True, 5), (False, 1)])
def test_outputs(specific, boxes):
    options = {"num_classes": 5, "class_specific": specific}
    model = create_model("localizer_resnet18", **options)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    made = variables("localizer_resnet18", 64, **options)
    found = jax.eval_shape(model.apply, made, images)
    assert (found["logits"].shape, found["boxes"].shape) == ((2, 5), (2, boxes, 4))
    assert model.task == "localization"


def test_parameters():
    """torchvision's resnet18 (11,689,512), and the box head over 7x7x512."""
    box = (49 * 512 + 1) * 256 + 257 * 4 * 1000
    assert parameters("localizer_resnet18") == 11_689_512 + box


def test_the_box_head_reads_every_place_of_the_last_map():
    outputs = shapes("localizer_resnet18", 96)
    assert outputs["stage4_block2"] == (3, 3, 512)
    assert outputs["flatten"] == (3 * 3 * 512,)


def test_boxes_start_in_the_middle_of_any_image():
    model = create_model("localizer_resnet18", 3, features=4, stage_sizes=(1, 1, 1, 1))
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))

    @jax.jit
    def boxes_of(images):
        return model.apply(model.init(jax.random.key(1), images), images)["boxes"]

    boxes = boxes_of(images)
    np.testing.assert_array_equal(boxes, np.tile([0.25, 0.25, 0.75, 0.75], (2, 3, 1)))
