"""Rows in batches, as many at once as the memory allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.visualize.batching import in_batches, largest_batch


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 4, 7, 100])
def test_batches_change_no_result_and_have_one_shape(batch_size):
    sizes = set()

    def f(x, y):
        sizes.add(len(x))
        return {"sum": x + y, "double": 2 * x}

    x, y = np.arange(7.0), np.arange(7.0)[::-1]
    found = in_batches(f, x, y, batch_size=batch_size)
    assert found["sum"].tolist() == [6.0] * 7
    assert found["double"].tolist() == (2 * x).tolist()
    assert len(sizes) == 1
    assert sizes.pop() <= (batch_size or 7)


def test_a_progress_bar_sees_the_batches():
    seen = []

    def progress(batches, total):
        seen.append(total)
        return batches

    in_batches(lambda x: x, np.arange(7), batch_size=3, progress=progress)
    assert seen == [3]


def test_the_memory_limit_counts_every_intermediate_value():
    """Of each row 100 float32: its sine, and, inside jit, its square: 800 bytes."""
    f = jax.jit(lambda x: jnp.sin(x) ** 2)
    rows = np.zeros((5, 100), np.float32)
    assert largest_batch(f, rows, memory_limit=8000) == 10
    assert largest_batch(f, rows, memory_limit=1e9) == 512
    with pytest.raises(UsageError, match="more than the memory limit"):
        largest_batch(f, rows, memory_limit=700)
