"""The loop that every attack is: one step over and over, on a batch of slots.

A slot holds one example. When examples are finished their slots go to the next ones in the queue,
and when the queue is empty the batch shrinks, so a fooled image stops costing. What a step computes
for an example depends on its own state alone, hence not on the company it is in.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from cnn_jax.attacks.norms import broadcast, flat
from cnn_jax.errors import UsageError
from cnn_jax.runtime import parallel
from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import repeat_while

LogitsOf = Callable[[Array], Array]

_SHRINK = 2  # each size of the batch is a program to compile, which larger steps would spare


# watch(examples, images [slots, h, w, c]): where the attack is with these of its examples, or, of
# an attack that does not move images, what it found so far. What it raises ends the attack.
Watch = Callable[[Int[np.ndarray, " slots"], Float[np.ndarray, "slots h w c"]], None]


class Batching(NamedTuple):
    """How examples are batched; it changes no result beyond the rounding of a batched network.

    size: slots at most, rounded up to a multiple of the devices.
    devices: over which the slots are spread; by default the first alone.
    watch: is shown the attack's images after each step, see `Watch`.
    """

    size: int = 128
    devices: parallel.Devices | None = None
    watch: Watch | None = None


DEFAULT = Batching()


class Step(NamedTuple):
    """What a step gives: the state after it, and which examples are finished, and which broken.

    The state of a finished example is final. Broken: its logits or gradient are not finite.
    """

    state: PyTree
    finished: Bool[Array, " n"]
    broken: Bool[Array, " n"]


class _Slots(NamedTuple):
    state: PyTree
    taken: Int[Array, " n"]
    finished: Bool[Array, " n"]
    broken: Bool[Array, " n"]


def not_finite(values: Float[Array, "n ..."]) -> Bool[Array, " n"]:
    """Return which examples hold a NaN or an infinity."""
    return ~jnp.isfinite(flat(values)).all(axis=1)


def run(
    step: Callable[..., Step],
    logits_of: LogitsOf,
    state: PyTree,
    *,
    steps: int,
    batching: Batching = DEFAULT,
    **options: Any,
) -> PyTree:
    """Return the state after `steps` steps of each example, or fewer where it finished before.

    Args:
      step: step(logits_of, state, taken, **options) -> Step, a function of its module; `taken` [n]
        counts each example's steps so far.
      state: arrays with the examples along the first axis; NumPy arrays return.
      options: hashable; each value is a program.

    Raises:
      UsageError: logits or gradients that are not finite.
    """
    devices = list(batching.devices or jax.devices()[:1])
    mesh = parallel.data_mesh(devices)
    spread = NamedSharding(mesh, PartitionSpec(parallel.AXIS))
    logits_of = jax.device_put(as_partial(logits_of), parallel.replicated(mesh))
    advance = _of_slots(step, tuple(sorted(options.items())))

    state = jax.tree.map(np.array, state)
    taken = np.zeros(len(jax.tree.leaves(state)[0]), np.int32)
    sizes = _sizes(min(batching.size, _slots_for(len(taken))), len(devices))
    owner, queue = np.empty(0, int), np.arange(len(taken) if steps else 0)
    while len(owner) + len(queue):
        smaller = [size for size in sizes[:-1] if size >= len(owner) + len(queue)]
        size = min(smaller, default=sizes[-1])
        owner, queue = np.split(np.concatenate([owner, queue]), [size])
        padded = np.resize(owner, size)
        slots = _Slots(
            jax.tree.map(lambda x, padded=padded: x[padded], state),
            taken[padded],
            finished=np.arange(size) >= len(owner),
            broken=np.zeros(size, bool),
        )
        until = _until(size, len(queue), sizes)
        slots = jax.device_put(slots, spread)
        slots = repeat_while(
            advance,
            slots,
            *(logits_of, steps, until),
            platform=devices[0].platform,
            watch=_watched(batching.watch, state, owner),
        )
        real = len(owner)
        slots = jax.tree.map(lambda x, real=real: np.asarray(x)[:real], slots)
        _complain(slots, owner)
        taken[owner] = slots.taken
        jax.tree.map(lambda x, new, owner=owner: x.__setitem__(owner, new), state, slots.state)
        owner = owner[~slots.finished]
    return state


def _watched(watch: Watch | None, state: PyTree, owner: Int[np.ndarray, " n"]) -> Callable | None:
    """Return what shows the running slots' images, None where nobody watches or none are moved."""
    names = [name for name in ("x", "best") if hasattr(state, name)]
    if watch is None or not names:
        return None

    def watched(made: int, slots: _Slots) -> None:
        del made
        watch(owner, np.array(getattr(slots.state, names[0]))[: len(owner)])

    return watched


def _shape(logits_of: LogitsOf, images: Float[Array, "n h w c"]) -> jax.ShapeDtypeStruct:
    dtype = jax.dtypes.canonicalize_dtype(images.dtype)
    return jax.eval_shape(logits_of, jax.ShapeDtypeStruct((1, *images.shape[1:]), dtype))


def classes(logits_of: LogitsOf, images: Float[Array, "n h w c"]) -> int:
    """Return how many classes the network tells apart, without running it."""
    return _shape(logits_of, images).shape[1]


def logits(
    logits_of: LogitsOf, images: Float[Array, "n h w c"], batching: Batching = DEFAULT
) -> Float[np.ndarray, "n classes"]:
    """Return the logits of any number of images."""
    shape = _shape(logits_of, images)
    empty = np.zeros((len(images), shape.shape[1]), shape.dtype)
    return run(_look, logits_of, (images, empty), steps=1, batching=batching)[1]


def _look(logits_of, state, taken) -> Step:
    images, _ = state
    logits = logits_of(images)
    return Step((images, logits), jnp.ones(len(images), bool), not_finite(logits))


def predictions(
    logits_of: LogitsOf, images: Float[Array, "n h w c"], batching: Batching = DEFAULT
) -> Int[np.ndarray, " n"]:
    """Return the class of each image, of equal logits the first."""
    return logits(logits_of, images, batching).argmax(axis=1)


def _slots_for(count: int) -> int:
    """Return the count or somewhat more, of four sizes an octave, which share their programs."""
    step = 2 ** max(0, count.bit_length() - 3)
    return max(1, -(-count // step) * step)


def _sizes(largest: int, devices: int) -> list[int]:
    """Return the batch sizes to choose from, ascending, multiples of the devices."""
    sizes = [-(-largest // devices) * devices]
    while (size := sizes[0] // _SHRINK // devices * devices) >= 4:
        sizes.insert(0, size)
    return sizes


def _until(size: int, waiting: int, sizes: list[int]) -> int:
    """Return down to how many running slots to go on before the batch is filled anew or shrunk."""
    if waiting:
        return size - max(1, size // 8)
    return max((each for each in sizes if each < size), default=0)


def _complain(slots: _Slots, owner: Int[np.ndarray, " n"]) -> None:
    if slots.broken.any():
        slot = int(slots.broken.argmax())
        raise UsageError(
            f"the network's logits or gradients are not finite on image {owner[slot]}, "
            f"step {slots.taken[slot]}; check its weights, and try float32 or float64"
        )


@functools.lru_cache(maxsize=64)  # one object for a step and its options, by which jit knows it
def _of_slots(step: Callable[..., Step], options: tuple[tuple[str, Any], ...]) -> Callable:
    """Return the step of the running slots, which also tells whether more than `until` run on."""

    def advance(slots: _Slots, logits_of, steps, until) -> tuple[_Slots, Bool[Array, ""]]:
        new = step(logits_of, slots.state, slots.taken, **dict(options))
        going = ~slots.finished
        state = jax.tree.map(
            lambda old, new: jnp.where(broadcast(going, old), new, old), slots.state, new.state
        )
        taken = slots.taken + going
        broken = going & new.broken
        finished = slots.finished | new.finished | broken | (taken >= steps)
        slots = _Slots(state, taken, finished, slots.broken | broken)
        return slots, (~finished).sum() > until

    return advance
