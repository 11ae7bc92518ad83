"""ConvNeXt."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import apply, init

from cnn_jax import create_model, layers
from cnn_jax.models.convnext import convnext_block, layer_norm
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
    y, _ = init(layer_norm)(jax.random.key(1), x)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-4)


@pytest.mark.parametrize("mean", [0, 10, 200])  # at 200 bfloat16 has steps of one deviation
def test_layer_norm_of_bfloat16_is_that_of_float64_wherever_the_mean_lies(mean):
    x = (mean + jax.random.normal(jax.random.key(0), (2, 3, 5, 256))).astype(jnp.bfloat16)
    y, _ = init(layer_norm)(jax.random.key(1), x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=2**-7, atol=2**-8)


def test_a_scale_multiplied_into_the_kernel_is_one_of_the_output(float64):
    """With all gradients; the form is that of bfloat16, here in float64."""
    rng = np.random.default_rng(0)
    x, scale = jnp.asarray(rng.normal(size=(9, 6))), jnp.asarray(rng.normal(size=4))
    weights = jnp.asarray(rng.normal(size=(9, 4)))
    params = init(partial(layers.dense, features=4))(jax.random.key(1), x)[1]["params"]

    def plain(scope, x, scale):
        return layers.dense(scope, x, 4) * scale

    def folded(scope, x, scale):
        return layers._dense_of_scaled(scope, x, scale, None)

    def slopes(form):
        def loss(*args):
            params, x, scale = args
            return jnp.sum(weights * jnp.sin(apply(form)({"params": params}, x, scale)))

        return jax.value_and_grad(loss, (0, 1, 2))(params, x, scale)

    close = partial(np.testing.assert_allclose, rtol=1e-12)
    jax.tree.map(close, slopes(folded), slopes(plain))


def test_a_block_trains_in_bfloat16_about_as_exactly_as_with_its_output_scaled():
    """Beside float32; a tap keeps the plain form. CPUs round products of bfloat16 differently."""
    block = partial(convnext_block, layer_scale=1.0, drop_rate=0.0)

    def errors(seed):
        rng = np.random.default_rng(seed)
        x = jnp.asarray(rng.normal(size=(8, 6, 6, 16)), jnp.float32)
        weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
        params = init(block)(jax.random.key(1), x)[1]["params"]

        def loss(params, x, flags):
            out = apply(block, flags={"train": True} | flags)({"params": params}, x)
            return jnp.sum(weights * jnp.sin(out.astype(jnp.float32)))

        exact = jax.grad(loss)(params, x, {})["layer_scale"]
        for flags in ({}, {"tap": lambda name, value: value}):
            found = jax.grad(loss)(params, x.astype(jnp.bfloat16), flags)["layer_scale"]
            yield float(jnp.abs(found - exact).max() / jnp.abs(exact).max())

    folded, plain = np.mean([list(errors(seed)) for seed in range(3)], axis=0)
    assert 0 < folded < 1.5 * plain


def test_whoever_taps_sees_the_projection_before_it_is_scaled():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8)).astype(jnp.bfloat16)
    block = partial(convnext_block, layer_scale=0.5, drop_rate=0.0)
    variables, seen = init(block)(jax.random.key(1), x)[1], {}

    def tap(name, value):
        seen[name] = value
        return value

    y = apply(block, flags={"train": True, "tap": tap})(variables, x)
    np.testing.assert_array_equal(y, x + seen["project"] * jnp.bfloat16(0.5))


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
