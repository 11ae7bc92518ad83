"""Support vector machines and ridge regressions on the features of regions."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from cnn_jax.tasks import rcnn

CLASSES = 3


def regions(seed: int = 0, each: int = 40):
    """Return features around a centre of their class (or of none), overlaps and truth."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(CLASSES + 1), each)
    centres = np.concatenate([3 * np.eye(CLASSES, 5), np.zeros((1, 5))])
    features = (centres[kinds] + 0.3 * rng.standard_normal((len(kinds), 5))).astype(np.float32)
    overlaps = np.eye(CLASSES + 1, CLASSES, dtype=np.float32)[kinds]
    truth = np.where(kinds < CLASSES, kinds, -1)
    return features, overlaps, truth


def test_each_class_is_told_from_the_others_and_from_the_background():
    features, overlaps, truth = regions()
    machines = rcnn.fit_machines(features, overlaps, truth, regularization=1.0)
    margins = np.asarray(rcnn.apply(machines, features))
    np.testing.assert_array_equal(margins > 0, truth[:, None] == np.arange(CLASSES))


def test_features_are_scaled_to_a_mean_norm_of_twenty():
    features, overlaps, truth = regions()
    machines = rcnn.fit_machines(features, overlaps, truth)
    norms = np.linalg.norm(machines.scale * features, axis=1)
    assert norms.mean() == pytest.approx(20, rel=1e-5)


def test_mining_ends_with_the_machine_of_all_negatives():
    features, overlaps, truth = regions()
    few = rcnn.fit_machines(features, overlaps, truth, first_negatives=5, rounds=20)
    scaled = few.scale * features
    for label in range(CLASSES):
        own = truth == label
        whole = LinearSVC(
            C=1e-3, loss="hinge", class_weight={1: 2.0}, intercept_scaling=10, max_iter=20_000
        ).fit(np.concatenate([scaled[own], scaled[~own]]), np.arange(len(own)) < own.sum())
        theirs = scaled @ whole.coef_[0] + whole.intercept_[0]
        np.testing.assert_allclose(rcnn.apply(few, features)[:, label], theirs, atol=0.02)


def test_a_proposal_is_a_negative_below_an_overlap_of_three_tenths_and_else_nothing():
    features, overlaps, truth = regions()
    between = np.full((30, 5), 1.5, np.float32)

    def margins(overlap):
        more = np.full((30, CLASSES), overlap, np.float32)
        machines = rcnn.fit_machines(
            np.concatenate([features, between]),
            np.concatenate([overlaps, more]),
            np.concatenate([truth, np.full(30, -1)]),
        )
        return np.asarray(rcnn.apply(machines, between[0]))

    np.testing.assert_array_equal(margins(0.9), margins(0.3))
    assert (margins(0.29) < margins(0.3)).all()


def test_a_class_without_objects_is_never_found():
    features, overlaps, truth = regions()
    machines = rcnn.fit_machines(features, overlaps, np.where(truth == 1, -1, truth))
    assert (rcnn.apply(machines, features)[:, 1] == -np.inf).all()
    assert np.isfinite(rcnn.apply(machines, features)[:, [0, 2]]).all()


def test_boxes_are_ridge_regressions_of_each_class():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 6)).astype(np.float32)
    deltas, labels = rng.standard_normal((50, 4)), np.repeat([0, 2], 25)
    fitted = rcnn.fit_boxes(features, deltas, labels, CLASSES, ridge=10.0)
    for label in (0, 2):
        own = labels == label
        x = fitted.scale * features[own].astype(np.float64)
        centred, target = x - x.mean(0), deltas[own] - deltas[own].mean(0)
        weights = np.linalg.solve(centred.T @ centred + 10 * np.eye(6), centred.T @ target)
        np.testing.assert_allclose(fitted.weights[:, label], weights, atol=1e-5)
    found = np.asarray(rcnn.apply(fitted, features))
    assert found.shape == (50, CLASSES, 4)
    assert (found[:, 1] == 0).all()


def test_a_region_has_an_overlap_with_each_class():
    overlaps = np.array([[0.2, 0.7], [0.5, 0.1], [0.9, 0.0]])
    found = rcnn.nearest_objects(overlaps, np.array([1, 1, 0]), 3)
    np.testing.assert_allclose(found, [[0.9, 0.5, 0], [0, 0.7, 0]], rtol=1e-6)
    assert rcnn.nearest_objects(np.zeros((0, 2)), np.zeros(0, int), 3).shape == (2, 3)
