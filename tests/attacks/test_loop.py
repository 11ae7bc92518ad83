"""The loop over slots: each example takes its own number of steps, and costs nothing after it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks import loop
from cnn_jax.attacks.loop import Batching, Step
from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import repeat_while


class State(NamedTuple):
    need: np.ndarray  # steps until the example is finished
    value: np.ndarray


SLOTS_OF_A_STEP = []


def count(logits_of, state, taken, *, increment):
    slots = len(taken)
    jax.debug.callback(lambda: SLOTS_OF_A_STEP.append(slots))
    value = state.value + increment
    return Step(state._replace(value=value), value >= state.need * increment, value < 0)


def run(need, steps=100, value=0, **options):
    SLOTS_OF_A_STEP.clear()
    state = State(np.asarray(need), np.full(len(need), value))
    found = loop.run(count, lambda x: x, state, steps=steps, increment=2, **options)
    jax.effects_barrier()
    return found.value


@pytest.mark.parametrize("size", [1, 4, 32])
def test_each_example_takes_its_own_steps_whatever_the_number_of_slots(size):
    need = np.random.default_rng(0).integers(1, 9, 21)
    np.testing.assert_array_equal(run(need, batching=Batching(size)), 2 * need)
    np.testing.assert_array_equal(
        run(need, steps=3, batching=Batching(size)), 2 * np.minimum(need, 3)
    )


def test_finished_examples_make_room_and_the_batch_shrinks():
    need = np.array([1] * 60 + [50] * 4)
    run(need, batching=Batching(16))
    assert set(SLOTS_OF_A_STEP) == {16, 4}
    most = 60 + 4 * 50 + 16 * 16  # the work there is, and a batch at the ends
    assert sum(SLOTS_OF_A_STEP) < most


@pytest.mark.parametrize(("examples", "slots"), [(1, 1), (10, 10), (11, 12), (33, 40), (64, 64)])
def test_few_examples_have_few_slots(examples, slots):
    run([1] * examples, batching=Batching(128))
    assert set(SLOTS_OF_A_STEP) == {slots}


def test_no_step_and_no_example_leave_all_as_it_is():
    np.testing.assert_array_equal(run([3, 4], steps=0), [0, 0])
    assert run(np.empty(0, int)).shape == (0,)


def test_slots_are_spread_over_devices():
    need = np.arange(1, 20)
    found = run(need, batching=Batching(10, tuple(jax.devices()[:4])))
    np.testing.assert_array_equal(found, 2 * need)
    assert set(SLOTS_OF_A_STEP) <= {12, 4}


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_loop_goes_on_until_few_enough_run(platform):
    need = jnp.array([1, 5, 3, 9])
    slots = loop._Slots(
        State(need, jnp.zeros(4, int)), jnp.zeros(4, int), jnp.zeros(4, bool), jnp.zeros(4, bool)
    )
    step = loop._of_slots(count, (("increment", 2),))
    found = repeat_while(step, slots, as_partial(jnp.sin), 7, 1, platform=platform)
    np.testing.assert_array_equal(found.finished, [True, True, True, False])
    np.testing.assert_array_equal(found.taken, [1, 5, 3, 5])
    np.testing.assert_array_equal(found.state.value, [2, 10, 6, 10])


def test_what_is_not_finite_is_told_with_its_image_and_step():
    with pytest.raises(UsageError, match="not finite on image 0, step 1"):
        run([5, 5], value=-9)
