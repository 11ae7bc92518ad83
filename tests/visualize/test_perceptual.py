"""The perceptual distance: the authors' package's, and what it promises."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.visualize.perceptual import perceptual_distance, stages

LAYERS = ("layer0", "layer1", "layer2")


@pytest.fixture(scope="module")
def reference():
    """See tests/references/make_perceptual.py."""
    with np.load(Path(__file__).parents[1] / "references" / "perceptual.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def sides(reference):
    return [{layer: reference[f"{layer}/{side}"] for layer in LAYERS} for side in "ab"]


def test_it_equals_lpips_without_weights(reference, sides):
    with jax.enable_x64(True):
        found = perceptual_distance(*sides)
        np.testing.assert_allclose(found, reference["distance"], rtol=0, atol=1e-12)
        for layer in LAYERS:
            one = perceptual_distance(*({layer: side[layer]} for side in sides))
            np.testing.assert_allclose(one, reference[f"{layer}/distance"], rtol=0, atol=1e-12)


def test_a_layer_without_rows_is_one_place(reference, sides):
    flat = [{"layer2": side["layer2"].reshape(3, -1)} for side in sides]
    np.testing.assert_allclose(perceptual_distance(*flat), reference["layer2/distance"], rtol=1e-6)


def test_it_does_not_depend_on_the_contrast_and_is_two_at_most():
    left, right = (
        jnp.zeros((1, 2, 2, 2)).at[..., 0].set(3),
        jnp.zeros((1, 2, 2, 2)).at[..., 1].set(1),
    )
    np.testing.assert_allclose(perceptual_distance({"a": left}, {"a": 5 * left}), [0], atol=1e-12)
    np.testing.assert_allclose(perceptual_distance({"a": left}, {"a": right}), [2], rtol=1e-6)


def test_its_gradient_is_finite_where_nothing_is_active():
    active, nothing = jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3))
    gradient = jax.grad(lambda x: perceptual_distance({"a": x}, {"a": active}).sum())(nothing)
    assert np.isfinite(gradient).all()


def test_stages_are_the_last_layers_of_each_size():
    shapes = {
        "stem": (8, 8, 4),
        "block1": (4, 4, 6),
        "block1/conv": (4, 4, 6),
        "block2": (4, 4, 8),
        "block3": (2, 2, 8),
        "pool": (8,),
    }
    assert stages(shapes) == ("stem", "block2", "block3")
