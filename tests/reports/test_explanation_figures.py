"""The figures of the experiments that look into a network."""

import numpy as np

from cnn_jax.reports import explanation_figures as figures

BOARD = np.indices((64, 64)).sum(0)[..., None] % 2 * np.ones(3)


def test_a_picture_is_enlarged_as_it_is_and_reduced_to_means():
    np.testing.assert_array_equal(
        figures.resized(BOARD, 128), BOARD.repeat(2, axis=0).repeat(2, axis=1)
    )
    inside = figures.resized(BOARD, 16)[2:-2, 2:-2]
    np.testing.assert_allclose(inside, 0.5, atol=0.02)


def test_classes_are_named_beside_the_points_or_among_them():
    rng, names = np.random.default_rng(0), [f"class {i}" for i in range(70)]

    def named(count):
        figure = figures.points(rng.uniform(size=(70, 2)), np.arange(70) % count, names)
        (axes,) = figure.axes
        beside = axes.get_legend().get_texts() if axes.get_legend() else []
        return [text.get_text() for text in beside], [text.get_text() for text in axes.texts]

    assert named(20) == (names[:20], [])
    assert named(60) == ([], names[:60])
    assert named(70) == ([], [])
