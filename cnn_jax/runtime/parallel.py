"""Running a step on all devices: jitted over a mesh, or pmapped.

Both are given the same global batch and give the same update, to float32 rounding: under jit the
batch statistics are the global batch's by construction, under pmap their moments are averaged.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from cnn_jax.errors import UsageError

AXIS = "data"


class Parallel(NamedTuple):
    """How one program runs on several devices.

    axis_name: what the step must be made with (create_train_step's argument).
    compile(step) -> the step on all devices; its first argument, the state, is donated.
    put_state(state) -> the state on every device.  get_state(state) -> one global copy of it.
    put_batch(local batch) -> the batch, spread over the devices by its first axis.
    """

    axis_name: str | None
    compile: Callable[[Callable], Callable]
    put_state: Callable[[PyTree], PyTree]
    get_state: Callable[[PyTree], PyTree]
    put_batch: Callable[[Mapping[str, np.ndarray]], PyTree]


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


def over_mesh(devices: Devices | None = None) -> Parallel:
    """jit with the state replicated and the batch sharded: `--parallel=jit`."""
    mesh = data_mesh(devices)

    def compile(step: Callable) -> Callable:
        return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))

    return Parallel(
        axis_name=None,
        compile=compile,
        put_state=lambda state: put_replicated(state, mesh),
        get_state=lambda state: state,
        put_batch=lambda batch: put_batch(batch, mesh),
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
