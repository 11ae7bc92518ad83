"""Square attack: its schedule and patterns, and what it may depend on."""

import jax
import numpy as np
import pytest

from cnn_jax.attacks.loop import predictions
from cnn_jax.attacks.norms import NORMS
from cnn_jax.attacks.square import bump, sides, square

KEY = jax.random.key(0)


def test_the_sides_of_the_squares_follow_the_published_schedule():
    """p = 0.8 of 32x32 pixels, halved after 10, 50, 200, ... queries."""
    assert sides(0.8, 32, 32, "linf") == (29, 20, 14, 10, 7, 5, 4, 3, 2, 1)
    assert sides(0.8, 32, 32, "l2") == (29, 21, 15, 11, 7, 5, 5, 3, 3, 3)
    assert sides(0.8, 5, 40, "linf")[0] == 5


@pytest.mark.parametrize("side", [3, 5, 8])
def test_bumps_are_the_authors(references, side):
    expected = references[f"square/bump{side}"]
    found = bump(side, 9)
    np.testing.assert_allclose(
        found[:side, :side], expected / np.linalg.norm(expected), rtol=0, atol=1e-14
    )
    assert not found[side:].any()
    assert not found[:, side:].any()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.6)])
def test_the_margin_falls_within_the_budget_and_in_any_company(case, norm, eps):
    options = {"eps": eps, "norm": norm}
    found = square(case.logits_of, case.images, case.labels, KEY, **options, steps=150)
    size = np.asarray(NORMS[norm].size(found - case.images))
    assert (size <= eps * (1 + 1e-12)).all()
    fooled = predictions(case.logits_of, found) != case.labels
    first = square(case.logits_of, case.images, case.labels, KEY, **options, steps=0)
    assert fooled.sum() > (predictions(case.logits_of, first) != case.labels).sum()
    part = np.array([4, 2])
    apart = square(
        case.logits_of,
        case.images[part],
        case.labels[part],
        KEY,
        **options,
        steps=150,
        indices=part,
    )
    np.testing.assert_allclose(apart, found[part], rtol=0, atol=1e-14)


def test_it_needs_no_gradient(case):
    def rounded(images):
        return jax.numpy.round(case.logits_of(images), 3)

    found = square(rounded, case.images, case.labels, KEY, eps=0.1, steps=60)
    before = predictions(rounded, case.images) != case.labels
    assert (predictions(rounded, found) != case.labels).sum() > before.sum()
