"""The whitening convolution."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.training.whitening import whitened, whitening_filters
from cnn_jax.weights.convert import from_published_layout
from tests.models.tracing import drawn, variables
from tests.references import parity

REFERENCES = Path(__file__).parents[1] / "references"


def signed(filters):
    """An eigenvector's sign is arbitrary: the largest entry's becomes positive."""
    flat = filters.reshape(-1, filters.shape[-1])
    return flat * np.sign(flat[np.abs(flat).argmax(0), np.arange(flat.shape[1])])


def test_filters_are_those_of_the_authors_script():
    filters = whitening_filters(parity.images(12), 2)
    with np.load(REFERENCES / "airbench.npz") as reference:
        theirs = from_published_layout("kernel", reference["whitening/filters"])
    assert filters.shape == theirs.shape == (2, 2, 3, 24)
    np.testing.assert_allclose(signed(filters), signed(theirs), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(filters[..., 12:], -filters[..., :12])


def test_what_it_answers_is_white():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((50, 12, 12, 3)) @ rng.standard_normal((3, 3))
    with jax.enable_x64(True):
        filters = whitening_filters(images, 2, epsilon=0.0)
        answers = np.asarray(ops.conv(images, filters, padding="valid"))[..., :12].reshape(-1, 12)
    np.testing.assert_allclose(answers.T @ answers / len(answers), np.eye(12), atol=1e-9)


def test_the_filters_take_the_place_of_a_kernel_alone():
    before = drawn(variables("airbench94", widths=(24, 8, 8)))
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3), "float32")
    after = whitened(before, "whiten", images)
    kernel = after["params"]["whiten"].pop("kernel")
    np.testing.assert_array_equal(kernel, whitening_filters(images, 2))
    assert jax.tree.structure(after | {}) != jax.tree.structure(before)
    del before["params"]["whiten"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize("path", ["group1/conv1", "head", "stem"])
def test_other_layers_are_refused(path):
    with pytest.raises(UsageError, match=f"--whiten={path}"):
        whitened(drawn(variables("airbench94", widths=(24, 8, 8))), path, np.zeros((2, 8, 8, 3)))
