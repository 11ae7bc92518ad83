"""The folder of one run: its configuration and its results, as JSON."""

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_jax.errors import UsageError


def open_workdir(
    path: str | os.PathLike,
    config: Mapping[str, Any],
    *,
    growing: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Path:
    """Makes the folder if there is none and keeps the configuration in its `config.json`.

    Args:
      path: the folder.
      config: what makes a run this run; opened again, the folder must hold an equal one.
      growing: the name of a number that may be larger than there. The file then gets it, and
        keeps the former ones under "NAME_before".
      defaults: what settings count as that the file does not have, as an older version wrote it.

    Raises:
      UsageError: the folder cannot be written, or holds another configuration; it is unchanged.
    """
    path = Path(path).expanduser()
    config = json.loads(_to_json(config))
    file = path / "config.json"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            _write(file, _to_json(config))
        found = json.loads(file.read_text())
        writable = os.access(path, os.W_OK)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write to {path}: {reason}; name another folder") from None
    except ValueError:
        raise UsageError(f"{file} is not JSON; name another folder") from None
    if not writable:
        raise UsageError(f"cannot write to {path}; name another folder")
    history = f"{growing}_before"
    if isinstance(found, dict):
        earlier = found.pop(history, [])
        found = json.loads(_to_json(defaults or {})) | found
        grown = growing in config and growing in found and found != config
        if grown and found == config | {growing: found[growing]}:
            if config[growing] < found[growing]:
                raise UsageError(
                    f"the run in {path} has --{growing}={found[growing]} and does not shrink to "
                    f"{config[growing]}: what it did followed a schedule over {found[growing]}; "
                    f"give as many or more, or name another folder"
                )
            _write(file, _to_json(config | {history: [*earlier, found[growing]]}))
            return path
    if found != config:
        raise UsageError(
            f"{path} holds a run of another configuration ({_differences(found, config)}); "
            "name another folder"
        )
    return path


def abandon_workdir(path: str | os.PathLike) -> None:
    """Removes the folder of a run that came to nothing: one that holds its configuration alone."""
    path = Path(path)
    if os.listdir(path) == ["config.json"]:
        (path / "config.json").unlink()
        path.rmdir()


def write_results(workdir: str | os.PathLike, results: Mapping[str, Any]) -> None:
    """Writes `results.json`: arrays as lists, what is not finite as null; in one step."""
    _write(Path(workdir) / "results.json", _to_json(results))


def _differences(found: Any, config: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "no table of settings there"

    def shown(settings: dict[str, Any], key: str) -> str:
        return json.dumps(settings[key]) if key in settings else "none"

    return "; ".join(
        f"{key}: {shown(found, key)} there, {shown(config, key)} here"
        for key in sorted(found | config)
        if shown(found, key) != shown(config, key)
    )


def _write(file: Path, text: str) -> None:
    """Replaces the file in one step, so that it is whole whenever the process ends."""
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        new.write_text(text)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _to_json(value: Any) -> str:
    return json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
