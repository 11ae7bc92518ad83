"""airbench, CIFAR-10 in seconds."""

import jax
import numpy as np
import pytest

from cnn_jax import create_model
from tests.models.tracing import activations, parameters, shapes

KEY = jax.random.key(0, impl="rbg")  # whose draws compile in a third of the time


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the authors' scripts, numel of all parameters, fixed ones included
        ("airbench94", 1_972_792),
        ("airbench95", 4_606_520),
        ("airbench96", 9_918_776),
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_sizes():
    found = shapes("airbench94")
    expected = {"whiten": (31, 31, 24), "group1": (15, 15, 64), "group2": (7, 7, 256)}
    expected |= {"group3": (3, 3, 256), "pool": (1, 1, 256), "flatten": (256,)}
    assert {path: found[path] for path in expected} == expected


@pytest.fixture(scope="module")
def drawn():
    model = create_model("airbench94", widths=(24, 32, 32))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    return model, model.init(KEY, images)


def test_the_first_filters_pass_their_inputs_on(drawn):
    model, variables = drawn
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), "float32")
    before, after = activations(model, variables, images, "gelu", "group1/conv1")
    np.testing.assert_array_equal(before, after)  # 24 of 24 filters
    before, after = activations(model, variables, images, "group1", "group2/conv1")
    np.testing.assert_allclose(after[..., :24], before, rtol=1e-6, atol=1e-6)
    assert np.abs(np.std(after[..., 24:])) > 0.1


def test_the_head_starts_with_unit_variance(drawn):
    head = drawn[1]["params"]["head"]["kernel"]
    assert head.std(ddof=1) == pytest.approx(1, abs=1e-6)
