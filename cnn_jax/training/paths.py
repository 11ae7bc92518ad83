"""Parameters by their paths."""

import re
from collections.abc import Callable

import jax
from jaxtyping import PyTree

from cnn_jax.errors import UsageError


def path_of(key_path: tuple) -> str:
    """Return "stage1_block1/conv1/kernel" for a pytree key path of nested dicts."""
    return "/".join(str(key.key) for key in key_path)


def freezing(pattern: str | None) -> Callable[[str], bool]:
    """Return f(path) -> whether the path matches the pattern from its start; None matches none.

    Raises:
      UsageError: not a regular expression.
    """
    if pattern is None:
        return lambda path: False
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--freeze={pattern!r} is not a regular expression: {error}") from error
    return lambda path: expression.match(path) is not None


def frozen(params: PyTree, pattern: str | None) -> PyTree:
    """Return whether each leaf stays as it is, see `freezing`."""
    stays = freezing(pattern)
    return jax.tree_util.tree_map_with_path(lambda path, _: stays(path_of(path)), params)
