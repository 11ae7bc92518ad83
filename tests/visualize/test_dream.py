"""DeepDream: exact tiles, gradients as the lecture states them, and more of what was there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, ops
from cnn_jax.visualize import dream
from cnn_jax.visualize.batching import gradient_of_sum, values_bytes
from cnn_jax.visualize.dream import Tiles

random = np.random.default_rng(5)
KERNELS = [random.normal(size=s) / 4 for s in ((3, 3, 3, 4), (5, 5, 4, 6), (3, 3, 6, 4))]
REACH = 24  # of the network below the receptive field is 2 * (1 + 2 + 2 * 2) + ... <= 24


def network(images):
    """Two strides, a pooling and odd borders; units every 2 and every 8 pixels."""
    first, second, third = (jnp.asarray(kernel, images.dtype) for kernel in KERNELS)
    x = jax.nn.relu(ops.conv(images - 0.4, first, stride=2))
    y = ops.max_pool(jax.nn.relu(ops.conv(x, second)), 3, stride=2, padding=1)
    return {"early": x, "late": jnp.tanh(ops.conv(y, third, stride=2))}


def early(images):
    return network(images)["early"]


def images(height, width, count=1):
    return jnp.asarray(np.random.default_rng(7).uniform(size=(count, height, width, 3)))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (51, 133)])
def test_tiles_give_the_gradient_of_the_whole_image(height, width, float64):
    x, objective = images(height, width, 2), dream.energy({"early": 0.3, "late": 1.0})
    whole, expected = dream.gradient(network, objective, x)
    ticks = []

    def progress(items, total):
        ticks.append(total)
        return items

    value, tiled = dream.gradient(network, objective, x, Tiles(16, REACH), progress=progress)
    assert ticks[0] > 5
    np.testing.assert_allclose(value, whole, rtol=1e-12)
    np.testing.assert_allclose(tiled, expected, rtol=1e-10, atol=1e-12)


def test_too_small_a_reach_would_be_noticed(float64):
    x, objective = images(96, 120), dream.energy()
    _, expected = dream.gradient(network, objective, x)
    _, tiled = dream.gradient(network, objective, x, Tiles(16, 0))
    assert np.abs(tiled - expected).max() > 1e-3


def test_a_window_takes_a_fraction_of_the_memory():
    x = jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32)
    window = jax.ShapeDtypeStruct((1, 64 + 2 * REACH, 64 + 2 * REACH, 3), jnp.float32)

    def temporary(shape):
        slope = jax.jit(jax.grad(lambda x: jnp.sum(network(x)["late"] ** 2)))
        return slope.lower(shape).compile().memory_analysis().temp_size_in_bytes

    assert temporary(window) < temporary(x) / 15


def test_tiles_are_as_large_as_the_memory_allows():
    """A smaller limit gives smaller tiles, one that is ample none, and a tiny one an error."""
    x = jax.ShapeDtypeStruct((1, 2048, 2048, 3), jnp.float32)  # 4 megapixels

    def values(side):
        window = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        return values_bytes(gradient_of_sum(network), window)

    assert dream.tiles_within(network, x, REACH, 1.01 * values(2048)) is None
    for size in (1024, 256, 64):
        limit = 1.01 * values(size + 2 * REACH)
        assert dream.tiles_within(network, x, REACH, limit) == Tiles(size, REACH)
    with pytest.raises(UsageError, match="raise the memory limit"):
        dream.tiles_within(network, x, REACH, 0.9 * values(64 + 2 * REACH))


def test_the_gradient_at_the_layer_is_its_activation(float64):
    x = images(24, 32)
    _, found = dream.gradient(early, dream.energy(), x)
    activation, back = jax.vjp(early, x)
    np.testing.assert_allclose(found, back(activation)[0], atol=1e-13)


def test_a_guides_gradient_is_its_best_matching_feature(float64):
    x, guide = images(24, 32), early(images(16, 16, 3)[2:])
    _, found = dream.gradient(early, dream.guided(guide), x)
    activation, back = jax.vjp(early, x)
    features = np.asarray(guide).reshape(-1, 4)
    best = np.argmax(np.asarray(activation) @ features.T, axis=-1)
    np.testing.assert_allclose(found, back(jnp.asarray(features[best]))[0], atol=1e-13)


def test_the_layer_sees_more_in_each_image_and_pixels_stay_valid():
    x = images(24, 32, 2).astype(jnp.float32)
    dreamt = dream.dream(early, x, jax.random.key(0), octaves=1, iterations=4, jitter=4)
    before, after = (dream.gradient(early, dream.energy(), i)[0] for i in (x, dreamt))
    assert np.all(after > 1.2 * before)
    assert dreamt.shape == x.shape
    assert dreamt.min() >= 0
    assert dreamt.max() <= 1
    again = dream.dream(early, x, jax.random.key(0), octaves=1, iterations=4, jitter=4)
    np.testing.assert_array_equal(dreamt, again)


def test_a_tiled_dream_is_the_whole_dream():
    x = images(24, 64).astype(jnp.float32)
    options = {"octaves": 1, "iterations": 2, "jitter": 3}
    whole = dream.dream(early, x, jax.random.key(0), **options)
    tiled = dream.dream(early, x, jax.random.key(0), tiles=Tiles(16, 8), **options)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_a_zoom_goes_into_the_middle():
    x = images(24, 24).astype(jnp.float32)
    frames = list(
        dream.zoom(
            early,
            x,
            jax.random.key(0),
            frames=2,
            magnification=2.0,
            octaves=1,
            iterations=1,
            step_size=0.0,  # of the dream nothing but the zoom
        )
    )
    np.testing.assert_allclose(frames[0], x, atol=1e-6)
    # rows 9 and 10 of 24 lie at 10.25 and 10.75 of the image before: a quarter and three between
    between = 0.75 * x[0, 10, 10] + 0.25 * x[0, 11, 10]
    np.testing.assert_allclose(
        frames[1][0, 9, 9], 0.75 * between + 0.25 * (0.75 * x[0, 10, 11] + 0.25 * x[0, 11, 11]),
        atol=1e-5,
    )  # fmt: skip


def test_a_layer_without_places_is_an_error_of_use():
    with pytest.raises(UsageError, match="without height and width"):
        dream.gradient(lambda x: x.mean(axis=(1, 2)), dream.energy(), images(8, 8))
