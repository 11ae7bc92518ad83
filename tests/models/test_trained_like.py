"""Networks of drawn weights that are like trained ones: no weight is without an effect."""

import jax
import numpy as np
import pytest

from cnn_jax.export import program
from cnn_jax.export.files import TOLERANCE
from tests.models import trained_like


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("lenet5", 32),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in {"resnet20": 32, "mobilenet_v2": 32}.items()
        ),
    ],
)
def test_photographs_are_told_apart_and_every_weight_is_felt(name, size):
    network = trained_like.network(name, size)
    pixels = trained_like.photographs(size, network.model.channels)

    @jax.jit
    def logits(variables):
        return program.outputs(network._replace(variables=variables))(pixels)["logits"]

    leaves, tree = jax.tree.flatten(network.variables)
    expected = np.asarray(logits(network.variables))
    largest = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * largest
    for i, leaf in enumerate(leaves):
        changed = tree.unflatten([*leaves[:i], 1.1 * leaf, *leaves[i + 1 :]])
        assert np.abs(logits(changed) - expected).max() > 10 * TOLERANCE * largest
