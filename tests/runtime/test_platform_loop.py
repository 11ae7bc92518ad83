"""The loop of each platform repeats the same step, in the same order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.runtime.platform_loop import STEPS_A_PROGRAM, repeat, repeat_while


def step(i, state, factor):
    value, seen = state
    return value * factor + i, seen.at[i].set(i)


STEPS = STEPS_A_PROGRAM + 5
START = (jnp.float32(1), jnp.full(STEPS, -1))


def by_hand():
    value = 1.0
    for i in range(STEPS):
        value = value * 0.5 + i
    return value


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_every_step_is_made_once_and_in_order(platform):
    value, seen = repeat(step, START, STEPS, 0.5, platform=platform)
    assert value == pytest.approx(by_hand(), rel=1e-6)
    np.testing.assert_array_equal(seen, np.arange(STEPS))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_inside_a_traced_function_it_is_traced_too(platform):
    run = jax.jit(lambda state: repeat(step, state, STEPS, 0.5, platform=platform))
    assert run(START)[0] == pytest.approx(by_hand(), rel=1e-6)


def test_a_function_repeated_again_is_not_traced_again():
    traces = []

    def traced(i, state):
        traces.append(i)
        return state + 1

    assert repeat(traced, jnp.float32(0), 3, platform="cpu") == 3
    assert repeat(traced, jnp.float32(5), 4, platform="cpu") == 9
    assert len(traces) == 1


@pytest.mark.parametrize(("platform", "ticks"), [("cpu", STEPS), ("gpu", 2)])
def test_progress_sees_every_tick_and_their_number(platform, ticks):
    seen = []

    def progress(items, total):
        assert total == ticks
        for item in items:
            seen.append(item)
            yield item

    repeat(step, START, STEPS, 0.5, progress=progress, platform=platform)
    assert len(seen) == ticks


def test_no_step_leaves_the_state():
    assert repeat(step, START, 0, 0.5) is START


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_step_is_repeated_while_it_asks_for_more(platform):
    def halve(state, least):
        half = state / 2
        return half, half > least

    assert repeat_while(halve, jnp.float32(100), 20, platform=platform) == 12.5
    assert repeat_while(halve, jnp.float32(1), 20, platform=platform) == 0.5
