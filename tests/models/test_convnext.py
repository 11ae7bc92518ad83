"""ConvNeXt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import apply, init

from cnn_jax import create_model
from cnn_jax.models.convnext import layer_norm
from tests.models.tracing import activations, parameters, shapes

KEY = jax.random.key(0, impl="rbg")  # whose draws compile in a third of the time


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # torchvision, ConvNeXt_*_Weights: num_params
        ("convnext_tiny", 28_589_128),
        pytest.param("convnext_small", 50_223_688, marks=pytest.mark.slow),
        pytest.param("convnext_base", 88_591_464, marks=pytest.mark.slow),
        pytest.param("convnext_large", 197_767_336, marks=pytest.mark.slow),
    ],
)
def test_parameters(name, expected):
    assert parameters(name, image_size=32) == expected


def test_sizes_are_the_table():
    found = shapes("convnext_tiny")  # table 9
    expected = {"stem": (56, 56, 96), "stage1_block3": (56, 56, 96), "stage2_conv": (28, 28, 192)}
    expected |= {"stage3_block9": (14, 14, 384), "stage4_block3": (7, 7, 768), "pool": (768,)}
    assert {path: found[path] for path in expected} == expected


def test_layer_norm_normalises_each_position():
    x = 100 + jax.random.normal(jax.random.key(0), (2, 3, 5, 16))
    y, variables = init(layer_norm)(jax.random.key(1), x)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-4)
    half = apply(layer_norm)(variables, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_blocks_start_near_the_identity():
    model = create_model("convnext_tiny", num_classes=2, widths=(8, 8), stage_sizes=(1, 2))
    images = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    variables = jax.jit(model.init)(KEY, images)
    before, after = activations(model, variables, images, "stage2_block1", "stage2_block2")
    assert 0 < np.abs(after - before).max() < 1e-5
    for leaf in (variables["params"][block]["layer_scale"] for block in ("stage1_block1",)):
        np.testing.assert_array_equal(leaf, np.full((1, 1, 8), 1e-6, np.float32))


def test_stochastic_depth_never_drops_the_first_block_and_needs_a_key():
    options = {"widths": (8, 8), "stage_sizes": (1, 2), "stochastic_depth_rate": 0.5}
    model = create_model("convnext_tiny", num_classes=2, layer_scale=1.0, **options)
    images = jax.random.normal(jax.random.key(1), (64, 32, 32, 3))
    variables = jax.jit(model.init)(KEY, images)

    @jax.jit
    def dropped(key):
        store = {}

        def tap(path, x):
            store[path] = x
            return x

        model.apply(variables, images, train=True, rngs={"dropout": key}, tap=tap)
        blocks = ("stage1_block1", "stage2_block1", "stage2_block2")
        return [jnp.all(store[f"{block}/drop"] == 0, axis=(1, 2, 3)).sum() for block in blocks]

    first, second, third = dropped(jax.random.key(2))
    assert first == 0
    assert 4 <= second <= 28  # of 64 at a rate of 1/4
    assert 18 <= third <= 46  # at 1/2
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(lambda v: model.apply(v, images, train=True), variables)
