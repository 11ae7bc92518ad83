"""Neighbours, their agreement in class, and maps."""

import jax
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.visualize.embedding import flat, nearest, recall_at, thumbnails, tsne

LINE = np.array([[0.0], [1.0], [3.0], [3.5], [10.0]])


def test_the_nearest_are_others():
    assert nearest(LINE, 2).tolist() == [[1, 2], [0, 2], [3, 1], [2, 1], [3, 2]]


def test_queries_may_come_from_elsewhere():
    assert nearest(LINE, 1, np.array([[0.1], [9.0]])).tolist() == [[0], [4]]


def test_more_neighbours_than_there_are_says_so():
    with pytest.raises(UsageError, match="5 neighbours of 4 to choose from; give 1 to 4"):
        nearest(LINE, 5)


def test_recall_counts_queries_with_one_of_their_class_among_the_first():
    labels = np.array([0, 1, 1, 0, 0])
    # 0: 1 1, 1: 0 1, 2: 0 1, 3: 1 1, 4: 0 1
    assert recall_at(nearest(LINE, 2), labels, (1, 2, 3)) == {1: 0.2, 2: 0.6}
    found = recall_at(nearest(LINE, 1, LINE[:2]), labels[:2], (1,), gallery_labels=labels)
    assert found == {1: 1.0}


def test_tsne_keeps_clusters_apart_and_repeats():
    rng = np.random.default_rng(0)
    centres = 20 * np.eye(3)[np.repeat(np.arange(3), 10)]
    vectors = flat((centres + rng.normal(size=(30, 3))).reshape(30, 3, 1, 1))
    points = tsne(vectors, jax.random.key(0), perplexity=5)
    assert points.min() == 0
    assert points.max() == 1
    assert np.array_equal(points, tsne(vectors, jax.random.key(0), perplexity=5))
    assert recall_at(nearest(points, 1), np.repeat(np.arange(3), 10), (1,)) == {1: 1.0}


def test_too_large_a_perplexity_says_so():
    with pytest.raises(UsageError, match="perplexity of 30 needs more than 5 examples"):
        tsne(LINE, jax.random.key(0))


def test_thumbnails_lie_on_a_grid_as_near_to_their_points_as_all_can():
    images = np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1, 1) * np.ones((3, 2, 2, 1))
    # the two upper right ones cannot both have the corner: the nearer keeps it
    picture = thumbnails(np.array([[0.0, 0.0], [1.0, 1.0], [0.7, 1.0]]), images)
    assert picture.shape == (2 + 1 + 2, 2 + 1 + 2, 1)
    assert (picture[3:, :2] == 0.1).all()  # bottom left
    assert (picture[:2, 3:] == 0.2).all()  # top right
    assert (picture[:2, :2] == 0.3).all()  # top left
    assert (picture[3:, 3:] == 1).all()
