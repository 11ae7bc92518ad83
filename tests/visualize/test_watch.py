"""Whoever watches an optimisation of images sees each step, changes nothing, and may end it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.attacks import deepfool, fab, gradient, loop
from cnn_jax.visualize import ascent, dream, inversion, methods
from cnn_jax.visualize.image_transforms import standard

IMAGES = np.random.default_rng(0).uniform(size=(1, 8, 8, 3)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(192, 4)).astype(np.float32)


def logits(x):
    return x.reshape(len(x), -1) @ KERNEL


def activation(x):
    return jnp.tanh(x[:, ::2, ::2] * 3)


def inverted(watch):
    found = inversion.invert(activation, activation(IMAGES), 0.5 * IMAGES, steps=5, watch=watch)
    return found.images


def ascended(watch):
    options = {"transform": standard(8), "steps": 5, "watch": watch}
    shape, key = IMAGES.shape, jax.random.key(0)
    return ascent.lucid(logits, ascent.channel([1]), shape, key, **options).images


def risen(watch):
    return ascent.simonyan(logits, ascent.channel([1]), IMAGES.shape, steps=5, watch=watch).images


def dreamt(watch):
    options = {"octaves": 1, "iterations": 5, "jitter": 1, "watch": watch}
    return dream.dream(activation, IMAGES, jax.random.key(0), **options)


@pytest.mark.parametrize("run", [inverted, ascended, risen, dreamt])
def test_every_step_is_shown_and_nothing_changed_by_it(run):
    seen = []
    watched = run(lambda step, images, *_: seen.append((step, np.asarray(images))))
    np.testing.assert_array_equal(watched, run(None))
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    assert all(images.shape == IMAGES.shape for _, images in seen)
    if run in (ascended, dreamt):  # the others return the lowest point, the last one not shown yet
        np.testing.assert_allclose(seen[-1][1], watched, atol=1e-6)


@pytest.mark.parametrize("run", [inverted, ascended, risen, dreamt])
def test_what_a_watcher_raises_ends_the_work(run):
    def watch(step, *_):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(watch)


def test_an_attack_is_watched_where_it_is():
    label, key, seen = logits(IMAGES).argmax(axis=1), jax.random.key(0), []
    batching = loop.Batching(1, watch=lambda examples, images: seen.append((examples[0], images)))
    options = {"eps": 0.1, "steps": 4}
    found = gradient.pgd(logits, IMAGES, label, key, batching=batching, **options)
    np.testing.assert_array_equal(found, gradient.pgd(logits, IMAGES, label, key, **options))
    assert [example for example, _ in seen] == [0, 0, 0, 0]
    np.testing.assert_array_equal(seen[-1][1], found)
    for attack in (deepfool.deepfool, fab.fab):
        seen.clear()
        attack(logits, IMAGES, label, key, steps=4, batching=batching)
        assert seen


@pytest.mark.parametrize("name", ["smooth_grad", "integrated_gradients", "occlusion", "rise"])
def test_methods_of_many_evaluations_tell_how_far_they_are(name):
    totals = []

    def progress(items, total):
        totals.append(total)
        return items

    def settings(**options):
        return methods.Settings(jax.random.key(0), steps=6, samples=6, masks=6, **options)

    explain = methods.named(name).explain
    maps = explain(logits, IMAGES, np.array([1]), settings(batch_size=3, progress=progress))
    assert totals
    assert all(total >= 2 for total in totals)
    np.testing.assert_array_equal(
        maps, explain(logits, IMAGES, np.array([1]), settings(batch_size=3))
    )
