"""What a training step will take on devices that are not there, told by their own compiler.

The step that training makes is compiled for a topology such as v5e:16x16, a pod of 256 chips, by
libtpu, which needs no chip for that. The compiled program tells its memory, its arithmetic, the
bytes that it moves and its communication; published peaks of the chip turn them into bounds.
"""

import hashlib
import importlib.metadata
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from cnn_jax.errors import UsageError, unknown
from cnn_jax.programs import hlo
from cnn_jax.programs.traffic import COLLECTIVES, array_bytes, repeated, traffic
from cnn_jax.runtime.parallel import AXIS, choose, data_mesh, replicated, state_sharding


class Chip(NamedTuple):
    """A device's published peaks.

    flops: dense, per second, of bfloat16.  memory_bandwidth: bytes per second.
    memory: bytes.  network: bytes per second between chips, all links together.
    """

    flops: float
    memory_bandwidth: float
    memory: float
    network: float


# cloud.google.com/tpu/docs/system-architecture-tpu-vm, a page for each version; NVIDIA's data
# sheets, with NVLink's bandwidth in one direction
CHIPS = {
    "TPU v4": Chip(275e12, 1228e9, 32 * 2**30, 300e9),
    "TPU v5 lite": Chip(197e12, 819e9, 16 * 2**30, 200e9),
    "TPU v5": Chip(459e12, 2765e9, 95 * 2**30, 600e9),
    "TPU v6 lite": Chip(918e12, 1640e9, 32 * 2**30, 448e9),
    "NVIDIA A100": Chip(312e12, 2039e9, 80 * 2**30, 300e9),
    "NVIDIA H100": Chip(989e12, 3350e9, 80 * 2**30, 450e9),
    "NVIDIA H200": Chip(989e12, 4800e9, 141 * 2**30, 450e9),
}

LOCAL = "local"
_GENERATIONS = ("v4", "v5e", "v5p", "v6e")
_SHAPE = re.compile(r"\d+(x\d+){1,2}")

_ACCOUNTED = ("main_memory_bytes", "traffic", "turns of loops")


def topology_devices(name: str) -> Sequence[jax.Device]:
    """Return the devices of a topology: "v5e:4x4", or "local", those of this machine.

    Raises:
      UsageError: an unknown topology, or libtpu is not installed.
    """
    if name == LOCAL:
        return jax.devices()
    generation, _, shape = name.partition(":")
    if generation not in _GENERATIONS:
        raise unknown("generation of TPU", generation, [*_GENERATIONS, LOCAL])
    if not _SHAPE.fullmatch(shape):
        raise UsageError(f"--topology={name} has no shape; write {generation}:4x4")
    # else libtpu asks the cloud which machine this is
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # else a second process that compiles is refused, as if both wanted the TPU
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(name, platform="tpu").devices
    except Exception as error:  # of several kinds, as libtpu is missing or knows no such shape
        line = " ".join(str(error).split())[:160]
        raise UsageError(
            f"no compiler for {name}: {line}; install libtpu (CNN_JAX_DEVICE=tpu ./launch.sh setup,"
            " or the extra tpu) and give a shape that the generation has"
        ) from None


def lower_step(
    step: Callable[[PyTree, PyTree], Any],
    state: PyTree,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    devices: Sequence[jax.Device],
    shard_state: bool = False,
) -> jax.stages.Lowered:
    """Return step(state, batch), lowered as --parallel=jit does it, over these devices.

    Args:
      state: arrays or their shapes.
      batch: shapes of the global batch, spread by the first axis.
      shard_state: whether a device holds a piece of the state, of a step that was made with
        parallel.over_shards(devices).gather, and not all of it.
    """
    mesh = data_mesh(devices)

    def held(shape: Sequence[int]) -> NamedSharding:
        return state_sharding(shape, mesh) if shard_state else replicated(mesh)

    def shapes(tree: PyTree, sharding: Callable[[Sequence[int]], NamedSharding]) -> PyTree:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(x.shape)), tree
        )

    jitted = choose("jit", shard_state, devices).compile(step)
    spread = NamedSharding(mesh, PartitionSpec(AXIS))
    return jitted.lower(shapes(state, held), shapes(dict(batch), lambda _: spread))


def compile_for_account(lowered: jax.stages.Lowered, cache: Path | None = None) -> dict[str, Any]:
    """Return the account of the compiled program, from the cache if it was compiled before.

    A large step takes minutes to compile for a pod.

    Args:
      cache: a folder that keeps accounts by the program's hash.

    Raises:
      DoesNotFit: the program does not fit into the devices' memory.
    """
    # the account's names too: one of another version of this package may lack some
    compiler = [jax.__version__, jaxlib.__version__, version("libtpu"), *_ACCOUNTED]
    compiler.append(os.environ.get("XLA_FLAGS", ""))
    program = "\n".join([lowered.as_text(), *compiler])
    kept = cache and cache / f"{hashlib.sha256(program.encode()).hexdigest()}.json"
    if kept and kept.exists():
        return json.loads(kept.read_text())
    try:
        found = account(lowered.compile())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm", str(error))
        raise DoesNotFit(
            *(float(needed[i]) * _UNITS[needed[i + 1]] if needed else None for i in (1, 3))
        ) from None
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found))
        partial.replace(kept)
    return found


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class DoesNotFit(UsageError):
    """The step's memory on a device, needed of what there is, in bytes; None if not told."""

    def __init__(self, needed: float | None, memory: float | None):
        self.needed, self.memory = needed, memory
        gib = [None if x is None else f"{x / 2**30:.2f} GiB" for x in (needed, memory)]
        what = f"needs {gib[0]} of {gib[1]}" if needed else "does not fit: it needs more"
        super().__init__(
            f"the step {what} of a device's memory; lower --batch_size, or give --remat_wide, "
            "--remat or --accumulate"
        )


def largest_batch(
    state_bytes: float, peak_bytes: float, memory: float, batch_size: int, devices: int
) -> int:
    """Return about the largest batch, of all devices together, whose step fits into the memory.

    What is not state grows with the examples on a device; 0 where not one fits.

    Args:
      state_bytes, peak_bytes, memory: of a device; the peak is that of this batch.
    """
    each = (peak_bytes - state_bytes) * devices / batch_size
    return max(0, int((memory - state_bytes) // each)) * devices


def version(package: str) -> str:
    """Return an installed package's version, "none" of one that is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def account(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Return what a compiled program takes, on each device and in each call.

    flops and bytes_accessed, the compiler's own sums, the latter over all memories, with what loops
    repeat, which they leave out, or None where it tells none; main_memory_bytes, that of the
    traffic of the main one; argument_bytes, temporary_bytes, peak_bytes; collectives: kind -> count
    and bytes of their results; traffic: what operations do -> bytes of the main memory and of all.
    """
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    arguments, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    extra = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = getattr(memory, "peak_memory_in_bytes", 0)
    if not peak or _is_cpu(compiled):  # whose peak leaves the temporaries out
        peak = arguments + temporary + extra
    program = hlo.read(compiled.as_text())
    moved = traffic(program)
    again = dict(zip(("flops", "bytes accessed"), repeated(program), strict=True))
    whole = {name: cost[name] + again[name] for name in again if name in cost}
    return {
        "flops": whole.get("flops"),
        "bytes_accessed": whole.get("bytes accessed"),
        "main_memory_bytes": sum(each.main for each in moved.values()),
        "argument_bytes": arguments,
        "temporary_bytes": temporary,
        "peak_bytes": peak,
        "collectives": collectives(program),
        "traffic": {kind: each._asdict() for kind, each in moved.items()},
    }


def _is_cpu(compiled: jax.stages.Compiled) -> bool:
    shardings = jax.tree.leaves(compiled.input_shardings)
    return any(device.platform == "cpu" for each in shardings for device in each.device_set)


def collectives(program: hlo.Program) -> dict[str, dict[str, int]]:
    """Return kind -> count and bytes of a program's collectives, by their results' shapes."""
    counts, sizes = Counter(), Counter()
    for each, times, _ in hlo.executed(program):
        kind = each.operation.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        arrays = [array_bytes(*array[:2]) for array in hlo.ARRAY.findall(each.shape)]
        if kind != each.operation and kind in ("all-gather", "collective-permute"):
            arrays = arrays[len(arrays) // 2 :]  # the operand stands before the result
        counts[kind] += times
        sizes[kind] += times * sum(arrays)
    return {kind: {"count": counts[kind], "bytes": sizes[kind]} for kind in sorted(counts)}


def chip_of(device_kind: str) -> Chip | None:
    """Return the published peaks of a kind of device; None if they are not known here."""
    fitting = [name for name in CHIPS if f"{device_kind} ".startswith(f"{name} ")]
    return CHIPS[max(fitting, key=len)] if fitting else None


def bounds(
    accounted: Mapping[str, Any], device_kind: str, devices: int
) -> dict[str, float | bool | None]:
    """Return the least seconds that arithmetic, memory and network take, by published peaks.

    seconds is their largest, as if they overlapped wholly; the network's is that of rings, in which
    a chip sends 2 (n - 1) / n of an all-reduce's bytes and (n - 1) / n of another collective's.
    All are None for a device whose peaks are not known. fits: whether the peak memory fits.
    """
    chip = chip_of(device_kind)
    if chip is None:
        return dict.fromkeys(("arithmetic", "memory", "network", "seconds", "fits"))
    share = (devices - 1) / devices
    sent = sum(
        (2 if kind == "all-reduce" else 1) * share * each["bytes"]
        for kind, each in accounted["collectives"].items()
    )
    found = {
        "arithmetic": accounted["flops"] / chip.flops,
        "memory": accounted["main_memory_bytes"] / chip.memory_bandwidth,
        "network": sent / chip.network,
    }
    return found | {
        "seconds": max(found.values()),
        "fits": accounted["peak_bytes"] <= chip.memory,
    }


def shapes_of(tree: PyTree) -> PyTree:
    """Return the shapes and dtypes of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)
