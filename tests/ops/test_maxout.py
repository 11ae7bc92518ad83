"""Maxout takes the largest of neighbouring channels."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, ops


def test_takes_the_largest_of_each_group_of_channels():
    x = jnp.array([[1.0, 5.0, 2.0, 7.0, 0.0, 3.0]])
    np.testing.assert_array_equal(ops.maxout(x, 3), [[5, 7]])
    np.testing.assert_array_equal(ops.maxout(x, 2), [[5, 7, 3]])


def test_a_pool_over_detectors_in_three_poses_answers_to_each_pose():
    strokes = {"/": np.eye(5)[::-1], "|": np.eye(5)[[2] * 5], "\\": np.eye(5)}
    detectors = jnp.stack([jnp.asarray(s) for s in strokes.values()], -1)[:, :, None]
    for stroke in strokes.values():
        answers = ops.conv(jnp.asarray(stroke)[None, ..., None], detectors, padding="valid")
        assert ops.maxout(answers, 3).item() == 5
        assert sorted(answers.ravel().tolist()) == [1, 1, 5]


def test_channels_that_do_not_divide_are_an_error_of_use():
    with pytest.raises(UsageError, match="7 channels do not divide into groups of 2"):
        ops.maxout(jnp.ones((1, 7)), 2)
