"""The annotations are checked where these tests call the operations."""

import jax.numpy as jnp
import jaxtyping
import pytest

from cnn_jax import ops


def test_an_array_of_another_type_than_annotated_is_noticed():
    boxes = jnp.zeros((2, 4))
    assert ops.box_iou(boxes, boxes).shape == (2, 2)
    with pytest.raises(jaxtyping.TypeCheckError):
        ops.box_iou(boxes, jnp.zeros((2, 5)))
    with pytest.raises(jaxtyping.TypeCheckError):
        ops.box_iou(boxes, jnp.zeros((2, 4), int))


def test_what_a_user_may_get_wrong_can_be_tested(wrong_types):
    assert ops.box_iou(jnp.zeros((2, 4), int), jnp.zeros((2, 4))).shape == (2, 2)
