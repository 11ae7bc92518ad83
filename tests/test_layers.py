"""Layers: what parameters they make, in which dtypes they compute, what training changes."""

from functools import partial

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import layers
from cnn_jax.errors import UsageError
from cnn_jax.taps import record

KEY = jax.random.key(0, impl="rbg")  # whose draws compile in a third of the time


def init(layer, x):
    return flax.core.unfreeze(jax.jit(lambda x: flax.core.init(layer)(KEY, x)[1])(x))


def apply(layer, variables, *args, mutable=False, rngs=None, **flags):
    return flax.core.apply(layer, mutable=mutable, flags=flags)(variables, *args, rngs=rngs)


def shapes(tree):
    return jax.tree.map(np.shape, tree)


def test_conv_has_a_kernel_in_hwio_order_and_a_bias():
    layer = partial(layers.conv, features=6, size=(3, 5), groups=2)
    variables = init(layer, jnp.zeros((1, 8, 8, 4)))
    assert shapes(variables) == {"params": {"kernel": (3, 5, 2, 6), "bias": (6,)}}


def test_gelu_is_the_exact_one():
    # x Phi(x), Phi(1) = 0.8413447
    x = jnp.array([1.0, -1.0])
    np.testing.assert_allclose(apply(layers.gelu, {}, x), [0.8413447, -0.1586553], 1e-6)


def test_dense_multiplies_and_adds():
    variables = {"params": {"kernel": jnp.array([[1.0, 2], [3, 4]]), "bias": jnp.array([10.0, 20])}}
    out = apply(partial(layers.dense, features=2), variables, jnp.array([[1.0, 1]]))
    np.testing.assert_array_equal(out, [[14, 26]])


def test_kernels_are_drawn_by_he_from_the_outputs_and_dense_ones_by_lecun_from_the_inputs():
    kernel = init(partial(layers.conv, features=64), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    kernel = init(partial(layers.dense, features=64), jnp.zeros((1, 100)))["params"]["kernel"]
    assert np.abs(kernel).max() == pytest.approx(0.1, rel=0.01)
    assert np.std(kernel) == pytest.approx(0.1 / np.sqrt(3), rel=0.02)


def test_flatten_runs_through_one_channel_after_the_other():
    x = jnp.arange(12).reshape(1, 2, 3, 2)
    out = apply(layers.flatten, {}, x)
    np.testing.assert_array_equal(out, [[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]])


def test_batch_norm_evaluates_by_its_running_statistics():
    variables = {
        "params": {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])},
        "batch_stats": {"mean": jnp.array([3.0]), "var": jnp.array([4.0])},
    }
    out = apply(partial(layers.batch_norm, epsilon=0.0), variables, jnp.array([[3.0], [5], [-1]]))
    np.testing.assert_allclose(out, [[1], [3], [-3]], rtol=1e-6)


# mean 2, biased variance 6, unbiased 8
BATCH = np.array([[0], [0], [2], [6]], "float32")
MOVED = {"mean": [0.1 * 2], "var": [0.9 * 1 + 0.1 * 8]}


def test_batch_norm_trains_by_the_batch_and_moves_its_running_statistics():
    layer = partial(layers.batch_norm, epsilon=0.0)
    variables = init(layer, BATCH)
    out, updates = apply(layer, variables, jnp.array(BATCH), train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(out, (BATCH - 2) / np.sqrt(6), rtol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], MOVED["mean"], rtol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["var"], MOVED["var"], rtol=1e-6)


@pytest.mark.parametrize("running", [0.0, 5.0, 300.0])
def test_batch_norm_of_bfloat16_trains_by_the_batch_wherever_the_running_mean_lies(running):
    values = np.random.default_rng(0).normal(5, 2, (64, 3, 3, 1)).astype(np.float32)
    x = jnp.asarray(values, jnp.bfloat16)
    variables = init(layers.batch_norm, x)
    variables["batch_stats"] = {"mean": jnp.array([running]), "var": jnp.ones(1)}
    (out, updates), (expected, wanted) = (
        apply(layers.batch_norm, variables, each, train=True, mutable=["batch_stats"])
        for each in (x, x.astype(jnp.float32))
    )
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=0.03)
    for name, close in (("mean", 1e-4), ("var", 1e-2)):
        ours, theirs = updates["batch_stats"][name], wanted["batch_stats"][name]
        np.testing.assert_allclose(ours, theirs, rtol=close)


def joined(scope, x):
    narrow = x[..., :4], {"scale_init": jax.nn.initializers.constant(0.5)}
    return layers.conv_bn_sum(scope, {"conv": narrow, "shortcut": (x, {})}, 32)


strided = partial(layers.conv_bn, features=32, size=1, stride=2)


@pytest.mark.parametrize("options", [{}, {"stays": lambda path: True}])
@pytest.mark.parametrize("layer", [strided, joined])
def test_convolutions_that_widen_train_with_their_norms_in_bfloat16_as_in_float32(layer, options):
    rng = np.random.default_rng(0)
    images = jnp.asarray(np.maximum(rng.normal(0.3, 1, (16, 8, 8, 8)), 0), jnp.float32)
    variables = init(layer, images)
    shape = jax.eval_shape(partial(apply, layer), variables, images).shape
    weights = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def loss(params, dtype):
        flags = {"train": True, "mutable": ["batch_stats"], **options}
        out, updates = apply(layer, variables | {"params": params}, images.astype(dtype), **flags)
        return jnp.sum(weights * jnp.sin(out.astype(jnp.float32))), (out, updates)

    slopes = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    ours, expected = (slopes(variables["params"], dtype) for dtype in ("bfloat16", "float32"))

    def close(one, other):
        one, other = np.asarray(one, np.float32), np.asarray(other)
        assert np.abs(one - other).max() <= 0.03 * np.abs(other).max()

    jax.tree.map(close, ours, expected)


def test_summands_that_widen_are_one_product_in_bfloat16():
    images = jnp.ones((4, 8, 8, 8))
    variables = init(joined, images)
    train = partial(apply, joined, variables, train=True, mutable=["batch_stats"])
    programs = [str(jax.make_jaxpr(train)(images.astype(t))) for t in ("bfloat16", "float32")]
    assert [program.count("[4,8,8,32] = conv_general_dilated") for program in programs] == [1, 2]


@pytest.mark.parametrize("groups", [None, 2])
def test_whoever_taps_sees_the_output_of_a_convolution_that_widens(groups):
    images, seen = jnp.ones((4, 8, 8, 8), jnp.bfloat16), {}
    layer = partial(layers.conv_bn, features=32, size=1)
    flags = {"train": True, "mutable": ["batch_stats"], "norm_batch": groups}

    def forward(**tap):
        return apply(layer, init(layer, images), images, **flags, **tap)[0]

    tapped = jax.eval_shape(partial(forward, tap=record(seen)))
    assert {name: x.shape[-1] for name, x in seen.items()} == {"": 32, "conv": 32, "bn": 32}
    assert tapped == jax.eval_shape(forward)


def test_pooled_first_the_first_layers_give_the_same_values_statistics_and_gradients():
    """In float64, beside the plain form, which a tap sees; a norm's scale may be negative."""
    rng = np.random.default_rng(0)
    pool = {"size": 3, "stride": 2, "padding": 1}
    layer = partial(layers.conv_bn_relu_pool, features=8, size=5, stride=2, pool=pool)
    with jax.enable_x64(True):
        images, weights = (jnp.asarray(rng.normal(size=s)) for s in ((6, 20, 17, 3), (6, 5, 5, 8)))
        variables = jax.tree.map(lambda x: x.astype("float64"), init(layer, images))
        norm = {name: jnp.asarray(rng.normal(size=8)) for name in ("scale", "bias")}
        variables["params"]["stem"] |= {"bn": norm}
        assert jnp.unique(jnp.sign(norm["scale"])).size == 2

        def loss(params, images, **tap):
            flags = {"train": True, "mutable": ["batch_stats"], **tap}
            out, updates = apply(layer, variables | {"params": params}, images, **flags)
            return jnp.sum(weights * jnp.sin(out)), (out, updates)

        arrays, seen = (variables["params"], images), {}
        plain = partial(loss, tap=record(seen))
        slopes = (jax.jit(jax.grad(each, (0, 1), has_aux=True))(*arrays) for each in (loss, plain))
        close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
        jax.tree.map(close, *slopes)
        programs = [str(jax.make_jaxpr(each)(*arrays)) for each in (loss, plain)]
    assert list(seen) == ["stem/conv", "stem/bn", "stem/relu", "stem", "stem_pool"]
    assert ["f64[6,10,9,8] = max" in program for program in programs] == [False, True]


@pytest.mark.parametrize("norm_batch", [None, 2])
def test_joined_channels_have_the_moments_of_their_parts(norm_batch):
    x = jax.random.normal(KEY, (4, 3, 3, 5)) + jnp.arange(5)
    variables = init(layers.batch_norm, x)
    flags = {"train": True, "mutable": ["batch_stats"], "norm_batch": norm_batch}

    def of_parts(scope, x):
        parts = [layers.batch_moments(scope, part) for part in (x[..., :2], x[..., 2:])]
        moments = jax.tree.map(lambda *part: jnp.concatenate(part, axis=-1), *parts)
        return layers.batch_norm(scope, x, moments=moments)

    found = apply(of_parts, variables, x, **flags)
    expected = apply(layers.batch_norm, variables, x, **flags)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), found, expected)
    assert apply(layers.batch_moments, {}, x) is None  # in evaluation no norm takes any


def test_batch_norm_over_a_mapped_axis_sees_the_whole_batch():
    layer = partial(layers.batch_norm, epsilon=0.0)
    variables = init(layer, BATCH)
    train = partial(apply, layer, train=True, mutable=["batch_stats"], axis_name="devices")
    parts = jnp.array(BATCH).reshape(2, 2, 1)
    out, updates = jax.vmap(train, in_axes=(None, 0), axis_name="devices")(variables, parts)
    np.testing.assert_allclose(out.reshape(4, 1), (BATCH - 2) / np.sqrt(6), rtol=1e-6)
    for device in range(2):
        moved = jax.tree.map(lambda leaf, device=device: leaf[device], updates["batch_stats"])
        np.testing.assert_allclose(moved["mean"], MOVED["mean"], rtol=1e-6)
        np.testing.assert_allclose(moved["var"], MOVED["var"], rtol=1e-6)


def test_batch_norm_in_training_leaves_immutable_statistics_alone():
    variables = init(layers.batch_norm, BATCH)
    out = apply(partial(layers.batch_norm, epsilon=0.0), variables, jnp.array(BATCH), train=True)
    np.testing.assert_allclose(out, (BATCH - 2) / np.sqrt(6), rtol=1e-6)


def test_batch_norm_of_a_constant_channel_is_finite():
    variables = init(layers.batch_norm, BATCH)
    out = apply(layers.batch_norm, variables, jnp.full((64, 1), 1234.567), train=True)
    assert np.isfinite(out).all()


def two_norms(scope, x):
    x = scope.child(layers.conv_bn, "first")(x, 2, size=1)
    return scope.child(layers.conv_bn, "second")(x, 2, size=1)


def test_one_value_a_channel_is_nothing_to_train_a_batch_norm_on():
    one = jnp.ones((1, 1, 1, 3))
    variables = init(two_norms, one)
    train = partial(apply, two_norms, variables, train=True)
    with pytest.raises(UsageError, match=r"^first/bn is a batch norm of one value a channel.*give"):
        train(one)
    with pytest.raises(UsageError, match=r"^second/bn "):
        train(one, stays=lambda path: path.startswith("first"))
    assert train(one, stays=lambda path: "bn" in path).shape == (1, 1, 1, 2)
    assert apply(two_norms, variables, one).shape == (1, 1, 1, 2)
    assert train(jnp.ones((1, 1, 2, 3))).shape == (1, 1, 2, 2)
    # two devices with one each see two
    both = jax.vmap(partial(train, axis_name="devices"), axis_name="devices")
    assert both(jnp.ones((2, 1, 1, 1, 3))).shape == (2, 1, 1, 1, 2)


def test_training_differentiates_through_the_batch_s_moments():
    """The output does not change when all inputs are shifted, or scaled about their mean."""
    layer = partial(layers.batch_norm, epsilon=0.0)
    weights = np.array([[1.0], [-2], [3], [5]])
    with jax.enable_x64(True):
        batch = BATCH.astype("float64")
        variables = init(layer, batch)
        slope = jax.grad(lambda x: jnp.sum(weights * apply(layer, variables, x, train=True)))(batch)
        slope = np.asarray(slope)
    assert np.abs(slope).max() > 0.1
    np.testing.assert_allclose(np.sum(slope), 0, atol=1e-12)
    np.testing.assert_allclose(np.sum(slope * (BATCH - 2)), 0, atol=1e-12)


def test_dropout_only_acts_in_training():
    x = jnp.ones((100, 100))
    np.testing.assert_array_equal(apply(partial(layers.dropout, rate=0.3), {}, x), x)
    drop = partial(apply, partial(layers.dropout, rate=0.3), {}, x, train=True)
    out = np.asarray(drop(rngs={"dropout": KEY}))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.7)}
    assert np.mean(out == 0) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(out, drop(rngs={"dropout": KEY}))
    assert (out != drop(rngs={"dropout": jax.random.key(1)})).any()
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        drop()


def block(scope, x):
    x = scope.child(layers.conv_bn_relu, "conv1")(x, 8)
    x = scope.child(layers.max_pool, "pool")(x, 2)
    x = scope.child(layers.conv_bn, "conv2")(x, 4, size=1)
    x = scope.child(layers.flatten, "flatten")(x)
    x = scope.child(layers.dropout, "dropout")(x, 0.5)
    return scope.child(layers.dense, "head")(x, 3)


@pytest.mark.parametrize("train", [False, True])
def test_computation_in_bfloat16_keeps_float32_parameters_and_statistics(train):
    images = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
    variables = jax.eval_shape(partial(init, block), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    seen = {}

    def tap(path, x):
        seen[path] = x.dtype
        return x

    run = partial(apply, block, train=train, tap=tap, mutable=["batch_stats"])
    logits, updates = jax.eval_shape(partial(run, rngs={"dropout": KEY}), variables, images)
    assert logits.dtype == jnp.bfloat16
    assert set(seen.values()) == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_computation_on_float64_images_gives_float64(dtype):
    with jax.enable_x64(True):
        images = jnp.ones((2, 4, 4, 3), "float64")
        variables = jax.tree.map(lambda leaf: leaf.astype(dtype), init(block, images))
        train = partial(apply, block, train=True, mutable=["batch_stats"], rngs={"dropout": KEY})
        logits, updates = jax.eval_shape(train, variables, images)
        assert logits.dtype == "float64"
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


def test_init_makes_float32_parameters_under_x64():
    with jax.enable_x64(True):
        variables = init(block, np.zeros((2, 4, 4, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_layers_tap_under_the_paths_of_their_parameters():
    images = jnp.ones((1, 4, 4, 3))
    seen = []
    tap = partial(apply, block, tap=lambda path, x: seen.append(path) or x)
    jax.eval_shape(tap, init(block, images), images)
    assert seen == [
        "conv1/conv",
        "conv1/bn",
        "conv1/relu",
        "conv1",
        "pool",
        "conv2/conv",
        "conv2/bn",
        "conv2",
        "flatten",
        "dropout",
        "head",
    ]


def deep(scope, x, blocks=4):
    for i in range(blocks):
        body = partial(layers.conv_bn_relu, features=8)
        x = scope.child(layers.rematerialized(scope, body), f"block{i}")(x)
    return x


def test_rematerialised_blocks_give_the_same_gradients_from_more_work_and_less_memory():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 8)), jnp.float32)
    variables = init(deep, images)

    def forward(params, remat):
        flags = {"train": True, "remat": remat, "mutable": ["batch_stats"]}
        return apply(deep, {**variables, "params": params}, images, **flags)

    def loss(params, remat):
        out, updates = forward(params, remat)
        return jnp.sum(out**2), updates

    def slopes(remat):
        return jax.grad(partial(loss, remat=remat), has_aux=True)

    params = variables["params"]
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    jax.tree.map(close, jax.jit(slopes(True))(params), jax.jit(slopes(False))(params))

    def convolutions(remat):
        return str(jax.make_jaxpr(slopes(remat))(params)).count("conv_general_dilated[")

    assert convolutions(True) == convolutions(False) + 4

    def kept(remat):
        """How many image-sized arrays the forward pass keeps for the backward pass."""
        backward = jax.vjp(partial(forward, remat=remat), params)[1]
        return sum(np.shape(leaf) == images.shape for leaf in jax.tree.leaves(backward))

    assert kept(True) <= 5  # the blocks' inputs and the last output
    assert kept(False) >= 8


def widening(scope, x, blocks=3):
    def body(scope, x):
        y = scope.child(layers.conv_bn_relu, "narrow")(x, 8, size=1)
        return x + scope.child(layers.conv_bn, "wide")(y, 32, size=1)

    for i in range(blocks):
        x = scope.child(layers.rematerialized(scope, body), f"block{i}")(x)
    return x


def test_rematerialisation_of_what_is_wide_repeats_the_convolutions_that_widen_alone():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 32)), jnp.float32)
    variables = init(widening, images)

    def forward(params, remat):
        flags = {"train": True, "remat": remat, "mutable": ["batch_stats"]}
        return apply(widening, {**variables, "params": params}, images, **flags)

    def slopes(remat):
        return jax.grad(lambda params: jnp.sum(forward(params, remat)[0] ** 2))

    params = variables["params"]
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, jax.jit(slopes("wide"))(params), jax.jit(slopes(False))(params))

    def count(remat, operation):
        return str(jax.make_jaxpr(slopes(remat))(params)).count(operation)

    convolutions = partial(count, operation="conv_general_dilated[")
    assert convolutions("wide") == convolutions(False) + 3
    assert convolutions(True) == convolutions(False) + 6
    # nor does it take the moments again, which other devices have a share in
    assert count("wide", "reduce_sum[") == count(False, "reduce_sum[")

    def kept(remat, channels):
        backward = jax.vjp(partial(forward, remat=remat), params)[1]
        return sum(np.shape(x) == (2, 6, 6, channels) for x in jax.tree.leaves(backward))

    assert kept("wide", 8) == 3  # what the narrow convolutions return
    assert kept("wide", 32) <= 4  # the blocks' inputs
    assert kept(False, 32) >= 6


def test_heads_beside_rematerialised_blocks_pass_the_tap_and_the_blocks_insides_do_not():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 8)), jnp.float32)
    variables = init(deep, images)

    def network(scope, x):
        x = deep(scope, x)
        scope.child(layers.global_avg_pool, "aux1")(x)
        return x

    def loss(params, remat):
        store = {}
        apply(network, {**variables, "params": params}, images, tap=record(store), remat=remat)
        seen.append(list(store))
        return jnp.sum(store["aux1"] ** 2)

    seen = []
    with_remat, without = (jax.jit(jax.grad(partial(loss, remat=r))) for r in (True, False))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, with_remat(variables["params"]), without(variables["params"]))
    assert seen[0] == ["aux1"]
    assert "block1/conv" in seen[1]


def chained(scope, x, blocks, alike):
    def block(scope, x, scale):
        return x + scale * jnp.tanh(scope.child(layers.dense, "dense")(x, x.shape[-1]))

    scales = [1.0 if alike else 1 + i / 100 for i in range(blocks)]
    bodies = {f"block{i}": partial(block, scale=scale) for i, scale in enumerate(scales)}
    return layers.chain(scope, x, bodies)


def slopes_of_chain(blocks, x, alike=True):
    """The variables of a chain of so many blocks, and f(remat) -> the gradient of its square."""
    network = partial(chained, blocks=blocks, alike=alike)

    def slopes(remat):
        return jax.grad(lambda variables: jnp.sum(apply(network, variables, x, remat=remat) ** 2))

    return init(network, x), slopes


@pytest.mark.parametrize("alike", [True, False])
def test_a_chain_whose_blocks_are_recomputed_by_groups_has_the_same_gradients(float64, alike):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
    variables, slopes = slopes_of_chain(5, x, alike)  # groups of 2, 2 and 1
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    jax.tree.map(close, slopes("deep")(variables), slopes(False)(variables))


@pytest.mark.parametrize("alike", [True, False])
def test_by_groups_the_memory_of_a_chain_grows_as_the_root_of_its_length(alike):
    x = jnp.ones((4096, 8))

    def arrays(blocks, remat):
        """The temporaries of the gradient, in arrays like x."""
        variables, slopes = slopes_of_chain(blocks, x, alike)
        compiled = jax.jit(slopes(remat)).lower(variables).compile()
        return compiled.memory_analysis().temp_size_in_bytes / x.nbytes

    assert arrays(16, True) - arrays(4, True) >= 11  # one a block
    assert arrays(16, "deep") - arrays(4, "deep") <= 5  # a group's input and a block's, of 2 more
