"""L-BFGS over a batch: each image its own problem, one evaluation a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.visualize.lbfgs import lbfgs
from cnn_jax.visualize.minimize import minimize

SCALES = jnp.asarray(np.geomspace(1, 100, 12))


def quadratic(params, key):
    return jnp.sum(SCALES * (params - 1) ** 2, axis=-1)


def rosenbrock(params, key):
    x, y = params[:, :-1], params[:, 1:]
    return jnp.sum(100 * (y - x**2) ** 2 + (1 - x) ** 2, axis=-1)


def starts(count, size=12):
    return jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (count, size)))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("loss", "size", "steps"), [(quadratic, 12, 60), (rosenbrock, 2, 120)])
def test_it_reaches_the_known_minimum(loss, size, steps):
    found = minimize(loss, starts(3, size), steps=steps, optimizer=lbfgs())
    np.testing.assert_allclose(found.params, 1, atol=1e-6)
    assert np.all(loss(found.params, None) < 1e-10)


def test_it_needs_few_steps_where_gradient_descent_does_not_arrive():
    slow = minimize(quadratic, starts(1), steps=60, optimizer=optax.sgd(0.9e-2))
    fast = minimize(quadratic, starts(1), steps=60, optimizer=lbfgs())
    assert quadratic(fast.params, None)[0] < 1e-10 < 1e-3 < quadratic(slow.params, None)[0]


def test_an_image_does_not_depend_on_its_batch():
    together = minimize(rosenbrock, starts(4, 2), steps=50, optimizer=lbfgs())
    alone = minimize(rosenbrock, starts(4, 2)[2:3], steps=50, optimizer=lbfgs())
    np.testing.assert_allclose(together.params[2:3], alone.params, rtol=1e-9)


def test_no_point_that_is_taken_is_higher_than_the_one_before():
    optimizer, params = lbfgs(), starts(3, 2)
    state, update, values = optimizer.init(params), jax.jit(optimizer.update), []
    for _ in range(60):
        value, gradient = jax.jit(
            jax.vmap(jax.value_and_grad(lambda p: rosenbrock(p[None], 0)[0]))
        )(params)
        updates, state = update(gradient, state, params, value=value)
        params = optax.apply_updates(params, updates)
        values.append(state.value)
    assert np.all(np.diff(values, axis=0) <= 0)
    assert np.all(values[-1] < 1e-3 * values[0])


def test_float32_stays_float32():
    found = minimize(quadratic, starts(2).astype(jnp.float32), steps=5, optimizer=lbfgs())
    assert found.params.dtype == jnp.float32
