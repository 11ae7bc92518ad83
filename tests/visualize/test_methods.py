"""The table of methods: every map has the image's size, whatever the method."""

import jax
import numpy as np
import pytest
from jax.tree_util import Partial

from cnn_jax import UsageError
from cnn_jax.visualize import gradients
from cnn_jax.visualize.methods import CONTROLS, METHODS, Settings, named

pytestmark = pytest.mark.usefixtures("float64")

SETTINGS = Settings(jax.random.key(0), steps=3, samples=3, masks=4, batch_size=4)


@pytest.mark.parametrize("name", [*METHODS, *CONTROLS])
def test_a_method_gives_one_finite_map_an_image(name, reference, network):
    f = Partial(network({"name": "plain"} | reference["plain"]))
    images = reference["images"]
    maps = np.asarray(named(name).explain(f, images, reference["targets"], SETTINGS))
    assert maps.shape == images.shape[:3]
    assert np.isfinite(maps).all()
    assert maps.std() > 0
    if not named(name).signed:
        assert maps.min() >= 0


def test_maps_are_those_of_the_methods_themselves(reference, network):
    f = Partial(network({"name": "plain"} | reference["plain"]))
    images, targets = reference["images"], reference["targets"]
    ours = named("saliency").explain(f, images, targets, SETTINGS._replace(batch_size=1))
    np.testing.assert_allclose(ours, gradients.saliency(f, images, targets), rtol=1e-10, atol=1e-12)
    ours = named("gradient_times_input").explain(f, images, targets, SETTINGS)
    plain = gradients.gradient_times_input(f, images, targets).sum(axis=-1)
    np.testing.assert_allclose(ours, plain, rtol=1e-10, atol=1e-12)


def test_an_unknown_method_lists_the_near_ones():
    with pytest.raises(UsageError, match="unknown method 'gradcam'; did you mean 'grad_cam'"):
        named("gradcam")
