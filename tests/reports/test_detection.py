"""Which of a detector's answers are drawn."""

import numpy as np

from cnn_jax.reports.detection import drawn


def chosen(*scores):
    return [list(np.flatnonzero(each)) for each in drawn([np.array(each) for each in scores])]


def test_the_sure_are_drawn():
    assert chosen([0.2, 0.7, 0.5], [0.4], []) == [[1, 2], [], []]


def test_where_no_image_has_a_sure_one_the_surest_of_each_are_drawn():
    assert chosen([0.2, 0.3], [0.4], []) == [[1], [0], []]
