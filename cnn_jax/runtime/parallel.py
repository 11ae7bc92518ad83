"""Running a step on all devices: jitted over a mesh, or pmapped.

Both are given the same global batch and give the same update, to float32 rounding: under jit the
batch statistics are the global batch's by construction, under pmap their moments are averaged.

Under jit the state may be spread over the devices, as in ZeRO (Rajbhandari et al. 2020, stage 3)
and FSDP: each holds a piece of every large array, the parameters come together where the network
computes with them, and their gradients are spread again as they are summed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from cnn_jax.errors import UsageError

AXIS = "data"
# Of fewer elements than this an array is whole on every device: to gather it would take longer.
SMALL = 4096


class Parallel(NamedTuple):
    """How one program runs on several devices.

    axis_name: what the step must be made with (create_train_step's argument).
    compile(step) -> the step on all devices; its first argument, the state, is donated.
    put_state(state) -> the state on every device.  get_state(state) -> one global copy of it.
    put_batch(local batch) -> the batch, spread over the devices by its first axis.
    gather(parameters) -> what the network computes with, for create_train_step.
    whole(variables) -> them, whole on every device, of what get_state returned.
    create(make, *args) -> make(*args) as put_state would place it, where no device holds it whole;
      None where every device does.
    """

    axis_name: str | None
    compile: Callable[[Callable], Callable]
    put_state: Callable[[PyTree], PyTree]
    get_state: Callable[[PyTree], PyTree]
    put_batch: Callable[[Mapping[str, np.ndarray]], PyTree]
    gather: Callable[[PyTree], PyTree] = lambda parameters: parameters
    whole: Callable[[PyTree], PyTree] = lambda variables: variables
    create: Callable[..., PyTree] | None = None


Devices = Sequence[jax.Device]


def data_mesh(devices: Devices | None = None) -> Mesh:
    """Return the devices, by default all of all hosts, as one axis."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the tree on every device; every host must hold the same values."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]),
        jax.tree.map(np.asarray, tree),
    )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> PyTree:
    """Return the global batch of which each host gives its part."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(x))
        for name, x in batch.items()
    }


def spread(batch: Mapping[str, np.ndarray], mesh: Mesh) -> PyTree:
    """Return the global batch, which each host gives whole, with its examples on all devices."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return {
        name: jax.make_array_from_callback(x.shape, sharding, lambda index, x=x: x[index])
        for name, x in batch.items()
    }


def within(mesh: Mesh | None, function: Callable) -> Callable:
    """Return the function, to be jitted, in which each_device knows the mesh."""
    if mesh is None:
        return function

    @wraps(function)
    def call(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return call


def each_device(function: Callable, *args: PyTree) -> PyTree:
    """Return function(*args), by each device of its own examples: of all arrays the first axis.

    For what loops until it is done: of a loop over all examples the devices would tell each other
    in every round whether one of them is not done yet. Outside of `within` all are one's own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types:  # or each device has its own: pmap
        return function(*args)
    spec = PartitionSpec(mesh.axis_names)
    return jax.shard_map(function, in_specs=spec, out_specs=spec)(*args)


def over_mesh(devices: Devices | None = None) -> Parallel:
    """jit with the state replicated and the batch sharded: `--parallel=jit`."""
    mesh = data_mesh(devices)

    def compile(step: Callable) -> Callable:
        step = within(mesh, step)
        return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))

    return Parallel(
        axis_name=None,
        compile=compile,
        put_state=lambda state: put_replicated(state, mesh),
        get_state=lambda state: state,
        put_batch=lambda batch: put_batch(batch, mesh),
    )


def state_sharding(shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """Return how an array of the state is spread: by its longest axis that divides, if large."""
    axes = [i for i, length in enumerate(shape) if length and length % mesh.size == 0]
    if mesh.size == 1 or not axes or math.prod(shape) < SMALL:
        return replicated(mesh)
    axis = max(axes, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def over_shards(devices: Devices | None = None) -> Parallel:
    """jit with the state spread over the devices, see state_sharding: `--shard_state`."""
    mesh = data_mesh(devices)
    everywhere = replicated(mesh)

    def spread_out(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: state_sharding(x.shape, mesh), tree)

    def constrained(tree: PyTree) -> PyTree:
        return jax.lax.with_sharding_constraint(tree, spread_out(tree))

    @jax.custom_vjp
    def gather(parameters: PyTree) -> PyTree:
        return jax.lax.with_sharding_constraint(parameters, everywhere)

    gather.defvjp(
        lambda parameters: (gather(parameters), None),
        lambda _, gradients: (constrained(gradients),),
    )

    def compile(step: Callable) -> Callable:
        def spread_step(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
            state, metrics = step(state, batch)
            return constrained(state), jax.lax.with_sharding_constraint(metrics, everywhere)

        return jax.jit(within(mesh, spread_step), donate_argnums=0)

    def create(make: Callable[..., PyTree], *args: PyTree) -> PyTree:
        made = jax.jit(make, out_shardings=spread_out(jax.eval_shape(make, *args)))
        return made(*jax.tree.map(np.asarray, args))

    def put_state(state: PyTree) -> PyTree:
        def put(x: Any) -> jax.Array:
            sharding = state_sharding(x.shape, mesh)
            if isinstance(x, jax.Array) and x.sharding == sharding:
                return x
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(put, state)

    return Parallel(
        axis_name=None,
        compile=compile,
        put_state=put_state,
        get_state=lambda state: state,
        put_batch=lambda batch: put_batch(batch, mesh),
        gather=gather,
        whole=jax.jit(partial(jax.tree.map, jnp.copy), out_shardings=everywhere),
        create=create,
    )


def over_pmap(devices: Devices | None = None) -> Parallel:
    """pmap with a leading device axis on state and batch: `--parallel=pmap`."""
    mesh = data_mesh(devices)
    local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]

    def spread(x: np.ndarray) -> Any:
        x = np.asarray(x)
        return x.reshape(len(local), -1, *x.shape[1:])

    def put_state(state: PyTree) -> PyTree:
        copy = jax.pmap(lambda _, state: state, in_axes=(0, None), devices=devices)
        return copy(np.arange(len(local)), state)

    def compile(step: Callable) -> Callable:
        mapped = jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=devices)

        def call(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
            state, metrics = mapped(state, batch)
            return state, jax.tree.map(lambda x: x[0], metrics)

        return call

    def get_state(state: PyTree) -> PyTree:
        one = jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data).squeeze(0), state)
        return put_replicated(one, mesh)

    return Parallel(
        axis_name=AXIS,
        compile=compile,
        put_state=put_state,
        get_state=get_state,
        put_batch=lambda batch: {name: spread(x) for name, x in batch.items()},
    )


PARALLEL: dict[str, Callable[[Devices | None], Parallel]] = {"jit": over_mesh, "pmap": over_pmap}


def choose(name: str, shard_state: bool, devices: Devices | None = None) -> Parallel:
    """Return the way of PARALLEL, or over_shards.

    Raises:
      UsageError: another way than jit with a state that is to be spread.
    """
    if not shard_state:
        return PARALLEL[name](devices)
    if name != "jit":
        raise UsageError(
            f"--shard_state spreads the state by jit, --parallel={name} holds it whole on every "
            "device; leave one of them out"
        )
    return over_shards(devices)


def check_batch_size(batch_size: int, devices: int, accumulate: int = 1) -> None:
    """Raise UsageError unless the batch divides among the devices and its parts."""
    shares = devices * accumulate
    if batch_size % shares:
        nearest = max(1, round(batch_size / shares)) * shares
        parts = f" x {accumulate} accumulated parts" if accumulate > 1 else ""
        raise UsageError(
            f"--batch_size={batch_size} does not divide by {devices} devices{parts}; "
            f"--batch_size={nearest} does"
        )
