"""Checkpoints of a training state that never restore damaged data.

Orbax writes them (asynchronously, each step a folder that appears at once under its final name).
Beside the arrays lies a manifest: step, configuration, metrics, and shape, dtype and CRC32 of every
leaf, under a CRC32 of its own, because Orbax alone restores a flipped bit without a word. A state
is any pytree of arrays; its leaves are known by their paths, such as
"params/stage1_block1/conv1/kernel" or "opt_state/0/trace/stem/conv/kernel".

A leaf that is spread over devices is written and read in pieces, by each process its own, and never
held whole by one. It has no CRC32 but a sum to which its pieces add up, however it is cut: of each
element's bits times an odd number that its place decides, modulo 2**64. Any flipped bit changes it.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from cnn_jax.errors import UsageError

_WHOLE, _IN_PIECES = _FORMATS = (1, 2)  # the first of all leaves whole
_STATE, _MANIFEST = "state", "manifest"
_DAMAGED = ".damaged"

PyTree = Any


def checkpoint_directory(workdir: str | os.PathLike) -> Path:
    """Return where a run keeps its checkpoints."""
    return Path(workdir) / "checkpoints"


class Checkpoint(NamedTuple):
    """A checkpoint in host memory, every leaf checked.

    Attributes:
      step: the step it was saved at.
      config: the configuration saved with it.
      metrics: the metrics saved with it, possibly empty.
      state: nested dicts of numpy arrays, by the leaves' paths; a PRNG key is its uint32 data.
    """

    step: int
    config: dict
    metrics: dict
    state: dict


def open_checkpoints(
    directory: str | os.PathLike,
    *,
    keep: int = 3,
    best_metric: str | None = None,
    best_mode: str = "max",
    warn: Callable[[str], None] = logging.warning,
) -> ocp.CheckpointManager:
    """Opens (or makes) a directory of checkpoints for saving and resuming; close it with `finish`.

    Clears what an interrupted save left behind, and moves step folders whose metadata cannot be
    read aside.

    Args:
      directory: where the step folders lie.
      keep: how many of the latest checkpoints stay, at least 1.
      best_metric: the name of a metric whose best checkpoint stays too.
      best_mode: "max" or "min".
      warn: is told, in one line, of everything that was moved aside.

    Raises:
      UsageError: the directory cannot be written.
    """
    if keep < 1 or best_mode not in ("max", "min"):
        raise ValueError(f"keep={keep} must be 1 or more, best_mode={best_mode!r} max or min")
    directory = _absolute(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UsageError(
            f"cannot write checkpoints in {directory}: {error.strerror}; choose another directory"
        ) from None
    _move_unreadable_aside(directory, warn)
    policy = preservation_policy.LatestN(n=keep)
    score = None
    if best_metric is not None:

        def score(metrics):
            return _score(metrics, best_metric, best_mode)

        best = preservation_policy.BestN(
            get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False
        )
        policy = preservation_policy.AnyPreservationPolicy([policy, best])
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=score,  # Orbax writes the metrics down only if it is given one.
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(barrier_sync_fn=_meet_unless_failing),
        ),
    )


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: PyTree,
    config: dict,
    metrics: dict | None = None,
    *,
    check_finite: bool = True,
) -> bool:
    """Saves a state under its step, in the background; every process has to call it.

    The state is copied before this returns, so its buffers may be donated. A replicated leaf is
    fetched from a local device, one that is spread over devices stays so.

    Args:
      manager: from `open_checkpoints`.
      step: the step the state is at.
      state: any pytree of JAX or numpy arrays.
      config: what rebuilds the model and the run; has to fit into JSON.
      metrics: name -> number, for `best_step` and for the manager's `best_metric`.
      check_finite: whether a NaN or an infinity in a leaf of floating point is refused.

    Returns:
      False if that step is saved already (nothing is written then), else True.

    Raises:
      FloatingPointError: a leaf is not finite; nothing is written.
      UsageError: a later step is there already.
    """
    step = int(step)
    if step in manager.all_steps():
        return False
    latest = manager.latest_step()
    if latest is not None and step < latest:
        raise UsageError(
            f"cannot save step {step} in {manager.directory}, step {latest} is there already; "
            "resume from it or choose another directory"
        )
    leaves = _leaves(state)
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable and not _is_key(leaf):
            leaf.copy_to_host_async()
    # jnp.copy: the state may be donated before all of it is written
    arrays = {
        path: jnp.copy(leaf) if _is_spread(leaf) else _fetch(leaf) for path, leaf in leaves.items()
    }
    spread = {path: array for path, array in arrays.items() if isinstance(array, jax.Array)}
    sums = dict(zip(spread, _sums(list(spread.values())), strict=True))
    if check_finite:
        bad = [_name(path) for path, array in arrays.items() if not _is_finite(array)]
        if not _on_all_processes(not bad) and not bad:
            bad = ["a piece of another process"]
        if bad:
            raise FloatingPointError(f"step {step} is not saved: NaN or infinity in {_first(bad)}")
    top_level, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: x is not state)
    content = {
        "format": _IN_PIECES if spread else _WHOLE,
        "step": step,
        "config": config,
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "fields": [_name(map(_key_name, path)) for path, _ in top_level],
        "leaves": {
            _name(path): _specification(leaves[path])
            | ({"sum": sums[path]} if path in sums else {"crc32": _crc32(array)})
            for path, array in arrays.items()
        },
    }
    # Through JSON and back here, as an error in the background thread would come one save too late.
    content = json.loads(json.dumps(content))
    # Orbax refuses arrays without elements; the manifest alone restores them.
    item = traverse_util.unflatten_dict({p: a for p, a in arrays.items() if a.size})
    return manager.save(
        step,
        args=ocp.args.Composite(
            **{
                _STATE: ocp.args.StandardSave(item),
                _MANIFEST: ocp.args.JsonSave(
                    {"crc32": zlib.crc32(_canonical(content)), "content": content}
                ),
            }
        ),
        metrics=content["metrics"],
        force=True,
    )


def restore(
    manager: ocp.CheckpointManager,
    target: PyTree,
    *,
    warn: Callable[[str], None] = logging.warning,
) -> tuple[PyTree, int] | None:
    """Restores the newest intact checkpoint, bit for bit; every process has to call it.

    A damaged one is moved aside, to "STEP.damaged", so that the step can be saved anew.

    Args:
      manager: from `open_checkpoints`.
      target: a state of the same structure: arrays or `jax.ShapeDtypeStruct`s. A leaf that is a
        numpy array comes back as one, any other as a JAX array, sharded as the target's leaf. The
        devices need not be those that saved.
      warn: is told, in one line, which step was damaged and how.

    Returns:
      The state and its step, or None if nothing was ever saved.

    Raises:
      UsageError: no checkpoint is intact, or the newest one is of another state (paths, shapes,
        dtypes).
    """
    manager.wait_until_finished()
    directory = Path(manager.directory)
    _move_unreadable_aside(directory, warn)
    found = None
    for step in reversed(steps(directory)):
        problem = None
        try:
            manifest = _read_manifest(directory / str(step))
            _check_same_structure(manifest, target, directory / str(step))
            arrays = _read_arrays(directory / str(step), manifest, _shardings(target))
            found = manifest, arrays
        except (UsageError, MemoryError, PermissionError):
            raise
        except Exception as error:  # Whatever the damage makes of the readers.
            problem = _one_line(error)
        if _on_all_processes(problem is None):
            spread = {name: x for name, x in found[1].items() if isinstance(x, jax.Array)}
            there = _sums(list(spread.values()))
            wrong = [
                name
                for name, total in zip(spread, there, strict=True)
                if total != found[0]["leaves"][name]["sum"]
            ]
            if not wrong:
                break
            problem = f"ValueError: {wrong[0]} does not match its sum"
        found = None
        _move_aside(directory / str(step), problem or "unreadable to another process", warn)
    manager.reload()  # What was moved aside may be saved anew.
    if found is None:
        aside = sorted(path.name for path in directory.glob(f"*{_DAMAGED}*"))
        if aside:
            raise UsageError(
                f"no intact checkpoint in {directory}, only {', '.join(aside)}; "
                "remove the directory to start anew"
            )
        return None
    manifest, arrays = found
    with_path, structure = jax.tree_util.tree_flatten_with_path(target)
    leaves = []
    for path, like in with_path:
        name = _name(map(_key_name, path))
        leaves.append(_place(arrays[name], manifest["leaves"][name], like))
    return structure.unflatten(leaves), manifest["step"]


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for the save in the background and closes; without it that save is lost at exit.

    Raises:
      Exception: what went wrong in the background, such as an OSError of a full disk.
    """
    manager.close()


def load(
    directory: str | os.PathLike,
    step: int | None = None,
    *,
    warn: Callable[[str], None] = logging.warning,
) -> Checkpoint:
    """Reads a checkpoint into host memory without knowing its state; changes nothing on disk.

    Args:
      directory: where the step folders lie.
      step: which one; by default the newest intact one.
      warn: is told, in one line, which step was damaged and how.

    Raises:
      UsageError: there is no checkpoint, no such step, or no intact one.
    """
    directory = _absolute(directory)
    there = steps(directory)
    if not there:
        raise UsageError(f"no checkpoint in {directory}; train first, or give another directory")
    if step is not None and step not in there:
        raise UsageError(
            f"no checkpoint of step {step} in {directory}; there are {', '.join(map(str, there))}"
        )
    for candidate in reversed(there) if step is None else (step,):
        try:
            manifest = _read_manifest(directory / str(candidate))
            arrays = _read_arrays(directory / str(candidate), manifest)
        except (UsageError, MemoryError, PermissionError):
            raise
        except Exception as error:  # Whatever the damage makes of the readers.
            warn(f"checkpoint {directory / str(candidate)} is damaged ({_one_line(error)})")
            continue
        state = {field: {} for field in manifest["fields"]}
        state.update(traverse_util.unflatten_dict(arrays, sep="/"))
        return Checkpoint(manifest["step"], manifest["config"], manifest["metrics"], state)
    if step is not None:
        raise UsageError(f"the checkpoint {directory / str(step)} is damaged; choose another step")
    damaged = _first([str(step) for step in reversed(there)])
    raise UsageError(f"no intact checkpoint in {directory}, damaged: {damaged}; train again")


def newest_config(directory: str | os.PathLike) -> dict | None:
    """The configuration in the newest readable manifest, without the arrays; None if none is."""
    return (_newest_manifest(directory) or {}).get("config")


def newest_metrics(directory: str | os.PathLike) -> dict:
    """The metrics in the newest readable manifest; {} if none is."""
    return (_newest_manifest(directory) or {}).get("metrics", {})


def _newest_manifest(directory: str | os.PathLike) -> dict | None:
    for step in reversed(steps(directory)):
        try:
            return _read_manifest(_absolute(directory) / str(step))
        except Exception:  # Whatever the damage makes of the reader; `restore` tells of it.
            continue
    return None


def steps(directory: str | os.PathLike) -> list[int]:
    """The steps that have a folder, intact or not, in ascending order; [] without the directory."""
    directory = _absolute(directory)
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _is_step_folder(path))


def best_step(
    directory: str | os.PathLike, metric: str, mode: str = "max"
) -> tuple[int, float] | None:
    """The step whose saved metric is best, the later of two equals, and the metric there.

    None if no checkpoint has the metric, or it is NaN or infinitely bad in all.
    """
    best, best_score = None, -math.inf
    for step in steps(directory):
        try:
            manifest = _read_manifest(_absolute(directory) / str(step))
        except Exception:  # A damaged checkpoint is not the best one.
            continue
        score = _score(manifest["metrics"], metric, mode)
        if score > -math.inf and score >= best_score:
            best, best_score = (step, manifest["metrics"][metric]), score
    return best


def parameters_sha256(variables: PyTree) -> str:
    """SHA-256, in hexadecimal, over the sorted paths of all leaves, each followed by its raw bytes.

    A path is UTF-8 ("params/conv1/kernel"), the bytes are C-contiguous and little-endian.

    Args:
      variables: a pytree of arrays, such as {"params": ..., "batch_stats": ...}.
    """
    leaves = {_name(path): leaf for path, leaf in _leaves(variables).items()}
    digest = hashlib.sha256()
    for path in sorted(leaves):
        digest.update(path.encode())
        digest.update(_bytes(_fetch(leaves[path])))
    return digest.hexdigest()


def _absolute(directory: str | os.PathLike) -> Path:
    return Path(os.path.abspath(directory))


def _is_step_folder(path: Path) -> bool:
    return path.name.isdecimal() and path.name == str(int(path.name)) and path.is_dir()


def _key_name(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)


def _name(path) -> str:
    return "/".join(path)


def _leaves(state: PyTree) -> dict[tuple[str, ...], Any]:
    """Path -> leaf, a path being the names of the tree's keys."""
    with_path, _ = jax.tree_util.tree_flatten_with_path(state)
    leaves = {tuple(map(_key_name, path)): leaf for path, leaf in with_path}
    if len({_name(path) for path in leaves}) < len(with_path):
        raise ValueError("two leaves of the state have the same path")
    return leaves


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _specification(leaf: Any) -> dict:
    """Shape and dtype as the manifest holds them."""
    specification = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if isinstance(leaf, jax.Array) and _is_key(leaf):
        specification["key_impl"] = str(jax.random.key_impl(leaf))
    return specification


def _fetch(leaf: Any) -> np.ndarray:
    """A copy in host memory of a whole, possibly distributed array."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.is_fully_replicated:
            leaf = leaf.addressable_data(0)
        else:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.array(leaf, order="C")


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(_bytes(array))


def _is_finite(array: np.ndarray | jax.Array) -> bool:
    """Whether all numbers are, of a spread array those of this process."""
    if not jnp.issubdtype(array.dtype, np.inexact):
        return True
    if isinstance(array, jax.Array):
        return all(np.isfinite(piece.data).all() for piece in array.addressable_shards)
    return bool(np.isfinite(array).all())


def _is_spread(leaf: Any) -> bool:
    """Whether no device holds all of it."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_replicated and not _is_key(leaf)


def _sums(arrays: Sequence[jax.Array]) -> list[int]:
    """The sum of each array over the pieces of all processes; each has to call it."""
    totals = [
        sum(
            _sum(np.asarray(piece.data), piece.index, array.shape)
            for piece in array.addressable_shards
            if piece.replica_id == 0
        )
        % 2**64
        for array in arrays
    ]
    if jax.process_count() == 1 or not arrays:
        return totals
    words = np.array([[total >> 32, total & 0xFFFFFFFF] for total in totals], np.uint32)
    found = multihost_utils.process_allgather(words)  # JAX has no 64 bits
    return [
        sum((int(a) << 32) + int(b) for a, b in found[:, i]) % 2**64 for i in range(len(arrays))
    ]


def _sum(piece: np.ndarray, index: tuple[slice, ...], shape: Sequence[int]) -> int:
    """A piece's part of its array's sum, which is that of the whole array for the whole index."""
    place = np.zeros((), np.uint64)
    for cut, length in zip(index, shape, strict=True):
        within = np.arange(*cut.indices(length), dtype=np.uint64)
        place = place[..., None] * np.uint64(length) + within
    # splitmix64 (Steele et al. 2014), which spreads the places over all numbers
    with np.errstate(over="ignore"):
        z = (place.reshape(-1) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        odd = (z ^ (z >> np.uint64(31))) | np.uint64(1)
        bits = np.ascontiguousarray(piece).reshape(-1).view(f"u{piece.dtype.itemsize}")
        return int((bits.astype(np.uint64) * odd).sum(dtype=np.uint64))


def _score(metrics: Any, name: str, mode: str) -> float:
    """Higher is better; what is missing or NaN is worst."""
    value = metrics.get(name) if isinstance(metrics, dict) else None
    if not isinstance(value, (int, float)) or math.isnan(value):
        return -math.inf
    return value if mode == "max" else -value


def _canonical(content: dict) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _first(lines: list[str], count: int = 3) -> str:
    more = f" and {len(lines) - count} more" if len(lines) > count else ""
    return ", ".join(lines[:count]) + more


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split())
    return f"{type(error).__name__}: {line[:200]}"


def _read_manifest(folder: Path) -> dict:
    """The checked content of a checkpoint's manifest; any exception but UsageError means damage."""
    path = folder / _MANIFEST
    if not path.is_dir():
        raise FileNotFoundError(f"no manifest in {folder}")
    manifest = ocp.JsonCheckpointHandler().restore(epath.Path(path))
    content = manifest["content"]
    if zlib.crc32(_canonical(content)) != manifest["crc32"]:
        raise ValueError("the manifest does not match its CRC32")
    if content["format"] not in _FORMATS:
        raise UsageError(
            f"{folder} has checkpoint format {content['format']}, this version reads {_IN_PIECES}; "
            "use the version of cnn_jax that wrote it"
        )
    if content["step"] != int(folder.name):
        raise ValueError(f"the manifest is of step {content['step']}")
    return content


class _OneByOne(ocp.type_handlers.NumpyHandler):
    """Reads one array after the other.

    Orbax's own reads them at once and, after the first failure, leaves the others to fail in its
    closed event loop, with a traceback each on stderr.
    """

    async def deserialize(self, infos, args=None):
        args = args or [None] * len(infos)
        return [
            (await super(_OneByOne, self).deserialize([info], arg and [arg]))[0]
            for info, arg in zip(infos, args, strict=True)
        ]


def _shardings(target: PyTree) -> dict[str, jax.sharding.Sharding]:
    """Path -> how a leaf of the target is spread, of those that are."""
    found = {}
    for path, leaf in _leaves(target).items():
        sharding = getattr(leaf, "sharding", None)
        if sharding is not None and not sharding.is_fully_replicated and not _is_key(leaf):
            found[_name(path)] = sharding
    return found


def _read_arrays(
    folder: Path, manifest: dict, shardings: Mapping[str, jax.sharding.Sharding] | None = None
) -> dict[str, np.ndarray | jax.Array]:
    """Path -> array, each checked against the manifest; any exception means damage.

    Args:
      shardings: of leaves that are read in pieces, where they were written so; their sums are not
        checked here.
    """
    in_pieces = {
        name: sharding
        for name, sharding in (shardings or {}).items()
        if "sum" in manifest["leaves"][name]
    }
    restore_args = {
        name: ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=in_pieces[name], strict=True)
        if name in in_pieces
        else ocp.RestoreArgs(restore_type=np.ndarray)
        for name, expected in manifest["leaves"].items()
        if math.prod(expected["shape"])
    }
    # The handler and not the manager: without barriers one process may fail and others not.
    handler = ocp.PyTreeCheckpointHandler(
        type_handler_registry=ocp.type_handlers.create_type_handler_registry(
            (np.ndarray, _OneByOne()),
            (jax.Array, ocp.type_handlers.ArrayHandler()),
        )
    )
    try:
        stored = handler.restore(
            epath.Path(folder / _STATE),
            args=ocp.args.PyTreeRestore(
                restore_args=traverse_util.unflatten_dict(restore_args, sep="/")
            ),
        )
    finally:
        handler.close()
    stored = traverse_util.flatten_dict(stored, sep="/")
    arrays = {}
    for path, expected in manifest["leaves"].items():
        if math.prod(expected["shape"]) == 0:
            arrays[path] = np.zeros(expected["shape"], expected["dtype"])
            continue
        if path in in_pieces:
            array = stored[path]
            if list(array.shape) != expected["shape"] or str(array.dtype) != expected["dtype"]:
                raise ValueError(f"{path} is {array.dtype}{array.shape}, not as saved")
            arrays[path] = array
            continue
        array = np.asarray(stored[path], order="C")
        is_key = "key_impl" in expected
        shape = list(array.shape[:-1] if is_key else array.shape)
        if shape != expected["shape"] or (not is_key and str(array.dtype) != expected["dtype"]):
            raise ValueError(f"{path} is {array.dtype}{shape}, not as saved")
        if "sum" in expected:
            whole = (slice(None),) * array.ndim
            if _sum(array, whole, array.shape) != expected["sum"]:
                raise ValueError(f"{path} does not match its sum")
        elif _crc32(array) != expected["crc32"]:
            raise ValueError(f"{path} does not match its CRC32")
        arrays[path] = array
    return arrays


def _check_same_structure(manifest: dict, target: PyTree, folder: Path) -> None:
    def text(specification):
        return f"{specification['dtype']}{specification['shape']}"

    saved = {path: text(specification) for path, specification in manifest["leaves"].items()}
    wanted = {_name(path): text(_specification(leaf)) for path, leaf in _leaves(target).items()}
    if saved == wanted:
        return
    differences = [
        f"{path} is {saved.get(path, 'absent')} there and {wanted.get(path, 'absent')} here"
        for path in sorted(saved.keys() | wanted.keys())
        if saved.get(path) != wanted.get(path)
    ]
    raise UsageError(
        f"{folder} holds another state: {_first(differences)}; "
        "use the configuration it was saved with, or another directory"
    )


def _place(array: np.ndarray | jax.Array, specification: dict, like: Any) -> Any:
    if isinstance(like, (np.ndarray, np.generic)) or isinstance(array, jax.Array):
        return array
    sharding = getattr(like, "sharding", None) if getattr(like, "committed", True) else None
    if "key_impl" in specification:
        keys = jax.random.wrap_key_data(array, impl=specification["key_impl"])
        return keys if sharding is None else jax.device_put(keys, sharding)
    if sharding is None:
        return jax.device_put(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _move_unreadable_aside(directory: Path, warn: Callable[[str], None]) -> None:
    """Leaves only step folders whose small files the manager can read."""
    if jax.process_index() == 0:
        for step in steps(directory):
            folder = directory / str(step)
            if not any(folder.iterdir()):
                warn(f"checkpoint {folder} is an empty folder; it is removed")
                folder.rmdir()
                continue
            try:
                _read_manifest(folder)
                ocp.path.step.standard_name_format().find_step(directory, step).commit_timestamp  # noqa: B018
                metrics = folder / "metrics"
                if metrics.exists():
                    json.loads((metrics / "metrics").read_text())
            except UsageError:
                continue  # Raised where all processes read it.
            except (MemoryError, PermissionError):
                raise
            except Exception as error:  # Whatever the damage makes of the readers.
                _rename_damaged(folder, _one_line(error), warn)
    _barrier("checkpoints_are_readable")


def _move_aside(folder: Path, problem: str, warn: Callable[[str], None]) -> None:
    if jax.process_index() == 0:
        _rename_damaged(folder, problem, warn)
    _barrier(f"checkpoint_{folder.name}_is_aside")


def _rename_damaged(folder: Path, problem: str, warn: Callable[[str], None]) -> None:
    aside = folder.with_name(folder.name + _DAMAGED)
    if aside.exists():
        shutil.rmtree(aside)  # The same step, damaged before: one copy is enough to look at.
    folder.rename(aside)
    warn(f"checkpoint {folder} is damaged ({problem}); it is now {aside.name}, falling back")


def _meet_unless_failing(*, key: str, timeout_ms: int) -> None:
    """Wait for the other processes, but not in a background thread whose write has just failed.

    Orbax has that thread meet the others before it gives the error, and they wait elsewhere for the
    write: for twenty minutes nobody would say that the disk is full.
    """
    if sys.exception() is None or threading.current_thread() is threading.main_thread():
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _on_all_processes(condition: bool) -> bool:
    if jax.process_count() == 1:
        return condition
    return bool(np.all(multihost_utils.process_allgather(np.asarray(condition))))
