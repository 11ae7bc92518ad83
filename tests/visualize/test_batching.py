"""Rows in batches, as many at once as the memory allows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.visualize.batching import in_batches, largest_batch, within_memory


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


def _norms(images):
    return {"norm": jnp.sum(jnp.sin(images) ** 2, axis=(1, 2, 3))}


def test_within_memory_a_batch_is_taken_in_parts_and_its_gradient_is_the_same(float64):
    """An image of 4x4x2 float64 has some values of 256 bytes; 7 images are no multiple of 2."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(7, 4, 4, 2)))
    weights = jnp.arange(7.0)

    def weighted(f):
        return jax.grad(lambda images: (weights * f(images)["norm"]).sum())

    gradient = jax.grad(lambda images: _norms(images)["norm"].sum())
    one = jax.make_jaxpr(gradient)(images[:1])
    values = sum(math.prod(v.aval.shape) * 8 for e in one.eqns for v in e.outvars)
    parts = within_memory(_norms, images, 2.5 * values)
    sizes = {e.params["length"] for e in jax.make_jaxpr(parts)(images).eqns if "length" in e.params}
    assert sizes == {4}
    np.testing.assert_allclose(parts(images)["norm"], _norms(images)["norm"], rtol=1e-14)
    np.testing.assert_allclose(weighted(parts)(images), weighted(_norms)(images), rtol=1e-14)
    with pytest.raises(UsageError, match="more than the memory limit"):
        within_memory(_norms, images, 0.5 * values)


def test_within_memory_a_batch_that_fits_is_left_whole():
    images = jnp.zeros((7, 4, 4, 2))
    assert "scan" not in str(jax.make_jaxpr(within_memory(_norms, images, 1e9))(images))
