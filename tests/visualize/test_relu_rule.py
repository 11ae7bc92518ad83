"""Guided backpropagation is the same however the ReLU was written, and by whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from cnn_jax import UsageError
from cnn_jax.visualize.gradients import gradient, guided_backprop
from cnn_jax.visualize.relu_rule import with_relu_rule

pytestmark = pytest.mark.usefixtures("float64")


def test_every_way_to_write_a_relu_gives_captums_map(written, reference, network):
    case = {"name": "residual"} | reference["residual"]
    ours = guided_backprop(network(case, written), reference["images"], reference["targets"])
    np.testing.assert_allclose(ours, case["guided_backprop"], rtol=1e-10, atol=1e-12)


def test_the_rule_changes_no_value(written):
    x = jnp.array([[-2.0, -0.0, 0.0, 3.0]])
    f = with_relu_rule(lambda x: written(x) * 2, "guided")
    assert f(x).tolist() == [[0, 0, 0, 6]]


def test_a_networks_own_flag_and_the_rule_agree():
    model = cnn_jax.create_model("lenet5", num_classes=3, filters=(2, 3), neurons=(4,))
    images = jax.random.normal(jax.random.key(1), (1, 16, 16, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def f(rule):
        return lambda images: model.apply(variables, images, relu_rule=rule)

    for rule in ("guided", "deconvnet"):
        ours = gradient(with_relu_rule(f("gradient"), rule), images, [1])
        own = gradient(f(rule), images, [1])
        np.testing.assert_allclose(ours, own, rtol=1e-10, atol=1e-12)


def at_one(f, x):
    """The slope of f at x when it is passed back as it is."""
    return jax.grad(lambda x: with_relu_rule(f, lambda x, g: 10 * g)(x).sum())(x)


def test_relus_in_loops_and_branches_are_found():
    def twice(x):
        return jax.lax.scan(lambda c, _: (jnp.maximum(c, 0), None), x, length=2)[0]

    def branch(x):
        return jax.lax.cond(x.sum() > 0, jax.nn.relu, lambda x: x, x)

    x = jnp.array([1.0, 2.0])
    assert at_one(twice, x).tolist() == [100, 100]
    assert at_one(branch, x).tolist() == [10, 10]
    assert jax.jit(lambda x: at_one(branch, -x))(x).tolist() == [1, 1]


def test_a_relu6_is_a_relu_below_six():
    x = jnp.array([-1.0, 1.0, 7.0])
    assert at_one(jax.nn.relu6, x).tolist() == [10, 10, 0]
    assert at_one(lambda x: jnp.clip(x, 0, 6), x).tolist() == [10, 10, 0]


def test_what_is_no_relu_is_left_alone():
    x = jnp.array([0.5, 2.0])

    def others(x):
        plain = jax.nn.silu(x) + jnp.maximum(x, 1) + jnp.where(x > 0, x, 3) + jnp.abs(x)
        return plain + x * (2 * x > 0) + jax.nn.leaky_relu(x)

    def with_one(x):
        return others(x) + jax.nn.relu(x)

    slope = jax.grad(lambda x: others(x).sum())(x)
    with pytest.warns(UserWarning, match="replaces 1 ReLUs alone: 2 places stop a value"):
        found = at_one(with_one, x)
    np.testing.assert_allclose(found, slope + 10, rtol=1e-14)


@jax.custom_jvp
def own_derivative(x):
    return jnp.where(x > 0, x, 0) + 0 * x


own_derivative.defjvp(lambda x, t: (own_derivative(*x), jnp.where(x[0] > 0, t[0], 0)))

UNRECOGNISED = {
    "x * (2 * x > 0)": lambda x: x * (2 * x > 0),
    "(x + |x|) / 2": lambda x: (x + jnp.abs(x)) / 2,
    "x * (1 + sign(x)) / 2": lambda x: x * (1 + jnp.sign(x)) / 2,
    "where(x > 1e-6, x, 0)": lambda x: jnp.where(x > 1e-6, x, 0),
    "where(-x < 0, x, 0)": lambda x: jnp.where(-x < 0, x, 0),
    "x - min(x, 0)": lambda x: x - jnp.minimum(x, 0),
    "a derivative of its own": own_derivative,
}


@pytest.mark.parametrize("name", UNRECOGNISED)
def test_a_relu_that_is_not_recognised_is_told_beside_one_that_is(name):
    x = jnp.array([-1.0, 2.0])
    both = UNRECOGNISED[name]
    with pytest.warns(UserWarning, match="replaces 1 ReLUs alone: 1 places"):
        with_relu_rule(lambda x: jax.nn.relu(both(x)), "guided")(x)
    with pytest.raises(UsageError, match=r"no ReLU in this network.*1 places"):
        with_relu_rule(both, "guided")(x)


@pytest.mark.filterwarnings("error::UserWarning")
def test_what_stops_no_value_by_its_own_size_is_not_told():
    def network(x):
        x = jax.nn.relu(x.reshape(1, 4, 4, 1))
        x = cnn_jax.ops.l2_pool(cnn_jax.ops.max_pool(x, 2), 2) + jax.nn.softmax(x.ravel())[0]
        pixels, places = cnn_jax.ops.max_pool_with_argmax(jnp.tile(x, (1, 2, 2, 1)), 2)
        x = cnn_jax.ops.max_unpool(pixels, places, (2, 2))
        kept = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
        return jax.nn.relu6(
            jax.nn.elu(jnp.where(kept, x, 0)) + jax.nn.softplus(x) + jax.nn.leaky_relu(x)
        ).sum()

    with_relu_rule(network, "guided")(jnp.arange(16.0) - 8)


def test_a_network_without_relus_says_so():
    with pytest.raises(UsageError, match="no ReLU in this network"):
        guided_backprop(lambda x: jnp.tanh(x).sum(axis=(1, 2)), jnp.ones((1, 2, 2, 3)), [0])


def test_an_unknown_rule_lists_the_near_ones():
    with pytest.raises(UsageError, match="did you mean 'guided'"):
        with_relu_rule(jax.nn.relu, "guide")
