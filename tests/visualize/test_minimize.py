"""The loop over images: what it returns, draws and records."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax.visualize.minimize import minimize


def distance(params, key):
    return jnp.sum((params - 3) ** 2, axis=-1)


def noisy(params, key):
    return jnp.sum((params - jax.random.normal(key, params.shape)) ** 2, axis=-1)


def test_history_holds_the_loss_before_each_step():
    found = minimize(distance, jnp.zeros((2, 4)), steps=3, optimizer=optax.sgd(0.25))
    # each step of 1/4 halves the way
    np.testing.assert_allclose(found.history, [[36, 36], [9, 9], [2.25, 2.25]])
    np.testing.assert_allclose(found.params, 3 * (1 - 0.5**3))


def test_without_randomness_the_lowest_point_is_returned():
    found = minimize(distance, jnp.full((1, 1), 2.9), steps=9, optimizer=optax.sgd(1.5))
    np.testing.assert_allclose(found.params, 2.9)  # every step doubles the distance


def test_the_draws_differ_by_step_and_repeat_by_key():
    def run(seed):
        key = jax.random.key(seed)
        return minimize(noisy, jnp.zeros((2, 3)), key, steps=4, optimizer=optax.sgd(0.0))

    first = run(0)
    assert len(np.unique(first.history)) == first.history.size
    np.testing.assert_array_equal(first.history, run(0).history)
    assert not np.array_equal(first.history, run(1).history)


def test_the_projection_holds_after_every_step():
    found = minimize(
        distance,
        jnp.zeros((1, 2)),
        steps=20,
        optimizer=optax.sgd(0.5),
        project=lambda x: jnp.clip(x, 0, 1),
    )
    np.testing.assert_array_equal(found.params, 1)


def test_arguments_reach_the_loss():
    def to_target(params, key, target):
        return jnp.sum((params - target) ** 2, axis=-1)

    found = minimize(
        to_target, jnp.zeros((1, 2)), None, jnp.array([5.0, 6.0]), steps=1, optimizer=optax.sgd(0.5)
    )
    np.testing.assert_allclose(found.params, [[5, 6]])
