"""Taps: named activations are read, exchanged and differentiated, at no cost but what is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, create_model, taps

KEY = jax.random.key(0, impl="rbg")  # whose draws compile in a third of the time

PATHS = [
    "conv1",
    "relu1",
    "pool1",
    "conv2",
    "relu2",
    "pool2",
    "flatten",
    "fc3",
    "relu3",
    "fc4",
    "relu4",
    "head",
]


@pytest.fixture(scope="module")
def network():
    model = create_model("lenet5")
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 1)), jnp.float32)
    return model, jax.jit(model.init)(KEY, images), images


def test_record_stores_every_activation_by_path_in_order(network):
    model, variables, images = network
    store = {}
    logits = model.apply(variables, images, tap=taps.record(store))
    assert list(store) == PATHS
    np.testing.assert_array_equal(store["head"], logits)
    assert store["pool1"].shape == (2, 14, 14, 6)


def test_record_stores_the_wanted_paths_alone(network):
    model, variables, images = network
    store = {}
    model.apply(variables, images, tap=taps.record(store, ["pool2", "fc3"]))
    assert list(store) == ["pool2", "fc3"]


def test_activation_shapes_runs_nothing(network):
    model, _, _ = network
    images = jax.ShapeDtypeStruct((10**6, 32, 32, 1), jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    shapes = taps.activation_shapes(model.apply, variables, images)
    assert list(shapes) == PATHS
    assert (shapes["conv2"].shape, shapes["conv2"].dtype) == ((10**6, 10, 10, 16), jnp.bfloat16)


def test_activations_are_those_of_the_untapped_network(network):
    model, variables, images = network
    logits, found = taps.activations(model.apply, variables, images, ["pool2", "fc4"])
    np.testing.assert_array_equal(logits, model.apply(variables, images))
    by_hand = np.maximum(found["fc4"], 0) @ variables["params"]["head"]["kernel"]
    np.testing.assert_allclose(logits, by_hand + variables["params"]["head"]["bias"], rtol=1e-5)
    assert list(found) == ["pool2", "fc4"]


def test_activations_passes_on_the_call_s_options():
    model = create_model("resnet20")
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def train(variables, images):
        options = {"train": True, "mutable": ["batch_stats"]}
        return taps.activations(model.apply, variables, images, ["stem/bn"], **options)

    (logits, updates), found = jax.eval_shape(train, variables, images)
    assert logits.shape == (4, 10)
    assert found["stem/bn"].shape == (4, 32, 32, 16)
    assert set(updates) == {"batch_stats"}


def test_an_unknown_path_is_an_error_that_names_the_near_ones(network):
    model, variables, images = network
    with pytest.raises(UsageError, match=r"'pool3'; did you mean .*'pool2'"):
        taps.activations(model.apply, variables, images, ["pool3"])
    with pytest.raises(UsageError, match=r"'pool3'; did you mean .*'pool2'"):
        taps.gradients(model.apply, jnp.sum, variables, images, ["pool3"])


def test_what_is_not_used_is_not_computed(network):
    model, variables, images = network

    def flops(paths):
        def read(variables, images):
            return taps.activations(model.apply, variables, images, paths)[1]

        return jax.jit(read).lower(variables, images).compile().cost_analysis()["flops"]

    first_convolution = 2 * 28 * 28 * 6 * 25 * len(images)
    all_layers = flops(["head"])
    assert all_layers > 3 * first_convolution
    assert first_convolution <= flops(["conv1"]) < 1.2 * first_convolution


def test_replace_computes_the_rest_from_the_replacement(network):
    model, variables, images = network
    head = variables["params"]["head"]
    silent = taps.replace({"fc4": jnp.zeros_like})
    np.testing.assert_array_equal(
        model.apply(variables, images, tap=silent), jnp.stack([head["bias"]] * 2)
    )


def test_compose_applies_in_turn(network):
    model, variables, images = network
    before, after = {}, {}
    tap = taps.compose(
        taps.record(before, ["fc3"]),
        taps.add({"fc3": jnp.ones((2, 120))}),
        taps.replace({"fc3": lambda x: 2 * x}),
        taps.record(after, ["fc3"]),
    )
    model.apply(variables, images, tap=tap)
    np.testing.assert_allclose(after["fc3"], 2 * (before["fc3"] + 1), rtol=1e-6)


def test_a_tap_acts_inside_blocks():
    model = create_model("resnet20")
    images = jnp.ones((1, 8, 8, 3))
    path = "stage1_block1/conv2/bn"

    @jax.jit
    def run(images):
        variables = model.init(KEY, images)
        silence = taps.replace({path: lambda x: jnp.full_like(x, -1e3)})
        store = {}
        model.apply(variables, images, tap=taps.compose(silence, taps.record(store)))
        return store["stage1_block1"]

    np.testing.assert_array_equal(run(images), np.zeros((1, 8, 8, 16)))


def test_added_zeros_change_nothing_and_add_follows_the_activation_s_dtype(network):
    model, variables, images = network
    zeros = taps.add({"pool1": np.zeros((2, 14, 14, 6), "float32")})
    np.testing.assert_array_equal(
        model.apply(variables, images, tap=zeros), model.apply(variables, images)
    )
    logits = model.apply(variables, images.astype(jnp.bfloat16), tap=zeros)
    assert logits.dtype == jnp.bfloat16


def test_gradients_with_respect_to_activations_equal_those_by_hand(network):
    model, variables, images = network
    values, slopes = taps.gradients(
        model.apply, lambda logits: logits[:, 3].sum(), variables, images, ["fc4", "pool1"]
    )
    # through the last dense layer and the ReLU before it
    by_hand = variables["params"]["head"]["kernel"][:, 3] * (values["fc4"] > 0)
    np.testing.assert_allclose(slopes["fc4"], by_hand, rtol=1e-6)

    # through everything: the rest of the network as a function of the activation
    def rest(activation):
        tap = taps.replace({"pool1": lambda _: activation})
        return model.apply(variables, images, tap=tap)[:, 3].sum()

    np.testing.assert_allclose(slopes["pool1"], jax.grad(rest)(values["pool1"]), atol=1e-7)
    assert np.abs(slopes["pool1"]).max() > 1e-3


def test_gradients_follow_the_relu_rule(network):
    model, variables, images = network

    def objective(logits):
        return logits[:, 3].sum()

    _, slopes = taps.gradients(
        model.apply, objective, variables, images, ["fc4"], relu_rule="deconvnet"
    )
    kernel = variables["params"]["head"]["kernel"][:, 3]
    np.testing.assert_allclose(slopes["fc4"], np.maximum([kernel, kernel], 0), rtol=1e-6)


def test_activations_alone_stop_at_the_last_and_so_take_images_of_any_size(network):
    model, variables, images = network
    _, expected = taps.activations(model.apply, variables, images, ["pool2", "conv1"])
    found = taps.activations_alone(model.apply, variables, images, ["pool2", "conv1"])
    assert list(found) == ["pool2", "conv1"]
    for path, activation in found.items():
        np.testing.assert_array_equal(activation, expected[path])
    wide = jax.jit(lambda x: taps.activations_alone(model.apply, variables, x, ["pool2"])["pool2"])(
        jnp.zeros((1, 48, 96, 1))
    )
    assert wide.shape == (1, 9, 21, 16)
    with pytest.raises(UsageError, match="unknown layer 'pol2'; did you mean 'pool2'"):
        taps.activations_alone(model.apply, variables, images, ["pol2"])
