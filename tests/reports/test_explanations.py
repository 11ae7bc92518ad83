"""The numbers beside the maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.reports import explanations, html
from cnn_jax.visualize.methods import Settings


def quadratic(weights, images, tap=None):
    """Two scores of images without a bias, so that a black one's are zero."""
    return jnp.square(images.reshape(len(images), -1)) @ weights


def asked(pixels):
    weights = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    f = jax.tree_util.Partial(quadratic, weights)
    names = [str(i) for i in range(len(pixels))]
    question = explanations.Question(f, pixels, np.zeros(len(pixels), int), names)
    settings = Settings(jax.random.key(0), steps=4)
    maps, refused, _ = explanations.explain(question, ["integrated_gradients"], settings)

    def picture(figure, name, caption):
        return html.paragraph(caption)

    return explanations.maps_section(question, maps, refused, settings, picture)


def test_a_black_image_leaves_the_completeness_of_the_others():
    pixels = np.random.default_rng(1).uniform(size=(3, 4, 4, 1)).astype(np.float32)
    pixels[1] = 0
    results, page = asked(pixels)
    assert results["integrated_gradients_error"] == pytest.approx(0, abs=1e-4)
    assert "(median of 2 images). 1 of the images scores as a black one does" in page


def test_black_images_alone_have_no_completeness():
    results, page = asked(np.zeros((2, 4, 4, 1), np.float32))
    assert results["integrated_gradients_error"] is None
    assert "2 of the images score as a black one does" in page
    assert "nan" not in page


def half_recognised(weights, images, tap=None):
    """A ReLU beside a gate by a value's own size, which no rule of ReLUs reaches."""
    x = jax.nn.relu(images.reshape(len(images), -1) @ weights)
    return jnp.where(x > 1e-6, x, 0) @ weights.T[:, :2]


def test_relus_that_were_not_recognised_are_told_beside_the_maps():
    weights = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    pixels = np.random.default_rng(1).uniform(size=(1, 4, 4, 1)).astype(np.float32)
    f = jax.tree_util.Partial(half_recognised, weights)
    question = explanations.Question(f, pixels, np.zeros(1, int), ["0"])
    settings = Settings(jax.random.key(0))
    with pytest.warns(UserWarning, match="not recognised as ReLUs"):
        maps, refused, doubts = explanations.explain(question, ["guided_backprop"], settings)
    assert set(doubts) == {"guided_backprop"}
    results, page = explanations.maps_section(
        question, maps, refused, settings, lambda figure, name, caption: html.paragraph(""), doubts
    )
    assert "not recognised as ReLUs" in page
    assert results["doubts"] == doubts
