"""Processes of one run that make sure they were started alike, as what differs ends in nonsense.

One with another flag, another version or other data computes something else than the others, which
then wait for it for ever, or take in its numbers without a word.
"""

import hashlib
import importlib.metadata
import itertools
import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax._src import distributed

import cnn_jax
from cnn_jax.errors import UsageError
from cnn_jax.runtime import peers

# What decides the numbers, or how processes talk to each other; the last ones where there are such.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "pillow")
_ACCELERATORS = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
_ALIKE = "give all the same command, code and data"
_meetings = itertools.count()


def check(facts: Mapping[str, Any], advice: str = _ALIKE) -> None:
    """Return once all processes have called it with the same facts: name -> what fits into JSON.

    Raises:
      UsageError: in all processes, where one's facts are not those of process 0.
    """
    client, index = distributed.global_state.client, distributed.global_state.process_id
    if client is None:
        return
    place, text = f"cnn_jax/agreement/{next(_meetings)}", json.dumps(facts, sort_keys=True)
    # few bytes of each go to all: a pod has hundreds of hosts
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    client.key_value_set(f"{place}/facts/{index}", json.dumps([socket.gethostname(), text]))
    client.key_value_set(f"{place}/digests/{index}", digest)
    peers.meet()
    digests = {
        int(key.rpartition("/")[2]): found
        for key, found in client.key_value_dir_get(f"{place}/digests/")
    }
    other = min((i for i in digests if digests[i] != digests[0]), default=None)
    if other is None:
        return
    (host, first), (host_of_other, second) = (
        json.loads(client.blocking_key_value_get(f"{place}/facts/{i}", 60_000)) for i in (0, other)
    )
    peers.end_by_themselves()
    peers.meet()
    raise UsageError(
        f"process {other} ({host_of_other}) differs from process 0 ({host}): "
        f"{differences(json.loads(first), json.loads(second))}; {advice}"
    )


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in words what differs in the facts of another process from those of process 0."""
    return "; ".join(
        f"{name} is {other.get(name)}, not {first.get(name)}"
        for name in sorted({*first, *other})
        if first.get(name) != other.get(name)
    )


def check_shared(folder: str | os.PathLike) -> None:
    """Return once all processes have seen in the folder what process 0 has put there.

    Raises:
      UsageError: in all processes, where one does not.
    """
    client, index = distributed.global_state.client, distributed.global_state.process_id
    if client is None:
        return
    key = f"cnn_jax/agreement/{next(_meetings)}"
    if index == 0:
        # a new name: of one that was looked for before a network's file system may remember that
        # it was not there
        name = f".seen_by_all_{secrets.token_hex(8)}"
        (Path(folder) / name).touch()
        client.key_value_set(key, name)
    file = Path(folder) / client.blocking_key_value_get(key, 3600 * 1000)
    try:
        seen = "there" if file.exists() else "missing"
        check(
            {"what process 0 has just written": seen},
            f"{folder} has to lie on a disk that all see",
        )
    finally:
        if index == 0:
            file.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Return the versions of what decides the numbers, and a digest of this package's code."""
    found = {}
    for name in (*_PACKAGES, *_ACCELERATORS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    folder, digest = Path(cnn_jax.__file__).parent, hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return found | {"cnn_jax": f"code {digest.hexdigest()[:8]}"}
