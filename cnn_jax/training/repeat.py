"""The options of a run that was, from its config.json, to make it again or another one like it."""

import json
import os
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cnn_jax.errors import UsageError
from cnn_jax.training.config import RECOMPUTED, TrainConfig


def options_of_run(path: str | os.PathLike, others: Collection[str] = ()) -> dict[str, Any]:
    """Return the options of TrainConfig that a run's config.json holds.

    Args:
      path: the file, or the folder that holds it.
      others: options besides those of TrainConfig that may be in it.

    Raises:
      UsageError: no such file, or options that are unknown or have no such value, all at once.
    """
    path = Path(path).expanduser()
    file = path / "config.json" if path.is_dir() else path
    try:
        options = json.loads(file.read_text())
    except OSError as error:
        raise UsageError(
            f"cannot read --config={file}: {error.strerror}; name a run's config.json or its folder"
        ) from None
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UsageError(f"--config={file} is no run's configuration; name a run's config.json")
    options.pop("steps_before", None)  # of a run that went on, see workdir.open_workdir
    kinds = typing.get_type_hints(TrainConfig)
    unknown = [name for name in options if name not in kinds and name not in others]
    wrong = [
        f"{name}={json.dumps(value)}"
        for name, value in options.items()
        if name in kinds and not _fits(value, kinds[name])
    ]
    faults = [
        *([f"options that training does not have: {', '.join(unknown)}"] if unknown else []),
        *([f"values of another type: {', '.join(wrong)}"] if wrong else []),
    ]
    if faults:
        raise UsageError(
            f"cannot repeat {file}, which has {' and '.join(faults)}; take a copy without them"
        )
    return options


def went_on(path: str | os.PathLike) -> list[int]:
    """Return the numbers of steps that a run stopped at before it was given more."""
    path = Path(path).expanduser()
    file = path / "config.json" if path.is_dir() else path
    return json.loads(file.read_text()).get("steps_before", [])


def override(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's options with others in place, without what followed from those replaced.

    A run's file holds what the data set and other options decided too: another data set has its own
    number of classes, and an evaluation at the size of training stays one. Another memory limit
    chooses anew.
    """
    kept = dict(options)
    if "memory_limit" in given and kept.get("memory_limit") not in (None, given["memory_limit"]):
        for name in ("accumulate", *RECOMPUTED):
            kept.pop(name, None)
    if "dataset" in given and given["dataset"] != kept.get("dataset"):
        kept.pop("num_classes", None)
    if "epochs" in given:
        kept.pop("steps", None)
    if "warmup_epochs" in given:
        kept.pop("warmup_steps", None)
    same = kept.get("eval_resize") == kept.get("eval_image_size")
    if "image_size" in given and kept.get("eval_image_size") == kept.get("image_size"):
        kept.pop("eval_image_size", None)
    if same and ("eval_image_size" in given or "eval_image_size" not in kept):
        kept.pop("eval_resize", None)
    return kept | dict(given)


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value of JSON is one of an option of this type."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(kind))
    if kind is type(None):
        return value is None
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return isinstance(value, list) and all(_fits(each, item) for each in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind
