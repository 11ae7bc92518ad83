"""Max unpooling puts maxima back in their places."""

import jax
import numpy as np

from cnn_jax import ops
from tests.ops.test_pooling import SLIDE


def test_equals_torch(torch_cases):
    case = torch_cases["unpool"]
    out = ops.max_unpool(case["values"], case["index"].astype(np.int32), (7, 5))
    np.testing.assert_array_equal(out, case["out"])


def test_the_slides_maxima_go_back():
    values, index = ops.max_pool_with_argmax(SLIDE.astype(float)[None, ..., None], 2)
    np.testing.assert_array_equal(index[0, ..., 0], [[4, 3], [12, 15]])
    np.testing.assert_array_equal(
        ops.max_unpool(values, index, (4, 4))[0, ..., 0],
        [[0, 0, 0, 8], [9, 0, 0, 0], [0, 0, 0, 0], [8, 0, 0, 5]],
    )


def test_pooling_again_gives_the_same_maxima_in_one_two_and_three_dimensions():
    rng = np.random.default_rng(0)
    for spatial in ((6,), (6, 4), (4, 2, 6)):
        x = rng.uniform(1, 2, size=(2, *spatial, 3))

        @jax.jit
        def pool_and_back(x, spatial=spatial):
            values, index = ops.max_pool_with_argmax(x, 2)
            return values, ops.max_pool(ops.max_unpool(values, index, spatial), 2)

        values, again = pool_and_back(x)
        np.testing.assert_array_equal(again, values)
