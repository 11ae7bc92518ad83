"""RISE is the paper's formula over masks of the stated kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.visualize.rise import draw_masks, enlarged, reliability, rise

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(2)


def random_masks(masks, size, **settings):
    return np.asarray(enlarged(draw_masks(KEY, masks, size, **settings), size))


def test_the_map_is_the_mean_of_the_masks_weighted_by_the_outputs(reference, network):
    f = network({"name": "plain"} | reference["plain"])
    images, targets = reference["images"], reference["targets"]
    settings = {"cells": 3, "probability": 0.4}
    ours = rise(f, images, targets, KEY, masks=20, **settings, fill=0.1, batch_size=6)
    masks = random_masks(20, images.shape[1:3], **settings)
    for image, target, map_ in zip(images, targets, ours, strict=True):
        seen = masks[..., None] * image + (1 - masks[..., None]) * 0.1
        weights = np.asarray(jax.nn.softmax(f(seen)))[:, target]
        expected = (weights[:, None, None] * masks).sum(axis=0) / (20 * 0.4)
        np.testing.assert_allclose(map_, expected, rtol=1e-12)


def test_after_each_batch_the_map_is_that_of_the_masks_so_far(reference, network):
    f = network({"name": "plain"} | reference["plain"])
    images, targets, seen = reference["images"], reference["targets"], []
    settings = {"masks": 14, "cells": 3, "output": "score", "batch_size": 6}
    last = rise(f, images, targets, KEY, **settings, watch=seen.append)
    assert len(seen) == 3
    masks = random_masks(14, images.shape[1:3], cells=3)
    for done, maps in zip((6, 12, 14), seen, strict=True):
        for image, target, map_ in zip(images, targets, maps, strict=True):
            scores = np.asarray(f(masks[:done, ..., None] * image))[:, target]
            expected = (scores[:, None, None] * masks[:done]).sum(axis=0) / (done * 0.5)
            np.testing.assert_allclose(map_, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(seen[-1], last)


def test_masks_are_shifted_soft_grids_of_the_stated_density():
    masks = random_masks(2000, (12, 9), cells=4, probability=0.3)
    assert masks.shape == (2000, 12, 9)
    assert masks.min() == 0
    assert masks.max() == 1
    np.testing.assert_allclose(masks.mean(axis=0), 0.3, atol=0.05)
    # a pixel knows its neighbour's value, but not that of one two cells away
    correlation = np.corrcoef(masks[:, 6].T)
    assert correlation[4, 5] > 0.7
    assert abs(correlation[0, 7]) < 0.1


def test_a_mask_is_a_cut_of_the_bilinearly_enlarged_grid():
    """Of 2x2 cells on 6x6 pixels: enlarged to 9x9, cut where one of nine places was drawn."""
    masks = random_masks(12, (6, 6), cells=2)
    cuts = [
        np.asarray(jax.image.resize(jnp.array(grid), (9, 9), "bilinear"))[r : r + 6, c : c + 6]
        for grid in np.array(list(np.ndindex(2, 2, 2, 2)), float).reshape(-1, 2, 2)
        for r, c in np.ndindex(3, 3)
    ]
    distances = np.abs(np.stack(cuts) - masks[:, None]).max(axis=(2, 3))
    assert distances.min(axis=1).max() < 1e-14
    assert len({mask.tobytes() for mask in masks}) > 6


def test_the_pixel_that_alone_counts_stands_out():
    def f(images):
        return jnp.stack([images[:, 2, 6, 0], jnp.zeros(len(images))], axis=1)

    image = jnp.ones((1, 9, 9, 1))
    found = rise(f, image, [0], KEY, masks=600, cells=5, output="score")[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(row - 2) <= 1
    assert abs(column - 6) <= 1
    # E[m_i m_j] / p is 1 / 2 where the two are independent
    np.testing.assert_allclose(found[8, :3], 0.5, atol=0.08)


def test_an_image_whose_map_has_settled_takes_no_more_masks():
    """The score of one pixel settles soon, noise does not; either map is that of the masks used."""
    noise = jnp.asarray(np.random.default_rng(0).normal(size=1000))
    calls = []

    def f(images):
        jax.debug.callback(lambda: calls.append(1))
        clear = images[:, 2, 6, 0]
        wild = noise[(images.sum(axis=(1, 2, 3)) * 1e4).astype(int) % 1000]
        return jnp.stack([clear, wild], axis=1)

    images = jnp.ones((2, 9, 9, 1))
    settings = {"cells": 5, "output": "score", "batch_size": 50}
    found = rise(f, images, [0, 1], KEY, masks=2000, settled=0.9, **settings)
    jax.effects_barrier()
    assert 40 < len(calls) < 60  # the second image takes all 40 batches, the first a few
    drawn = random_masks(2000, (9, 9), cells=5)
    used = 50 * (len(calls) - 40)
    expected = (drawn[:used, 2, 6, None, None] * drawn[:used]).sum(axis=0) / (used * 0.5)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    all_masks = rise(f, images, [0, 1], KEY, masks=2000, **settings)
    np.testing.assert_array_equal(found[1], all_masks[1])
    assert np.corrcoef(found[0].ravel(), all_masks[0].ravel())[0, 1] > 0.9


def test_reliability_is_spearman_and_browns():
    rng = np.random.default_rng(1)
    common, *parts = rng.normal(size=(3, 200, 200))
    a, b = (common + part for part in parts)  # correlated by .5
    assert abs(reliability(a, b) - 2 / 3) < 0.02
    assert reliability(a, -a) == 0
    assert reliability(a, np.ones_like(a)) == 0
