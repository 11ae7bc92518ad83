"""Parameters by their paths."""

import re

import jax
from jaxtyping import PyTree

from cnn_jax.errors import UsageError


def path_of(key_path: tuple) -> str:
    """Return "stage1_block1/conv1/kernel" for a pytree key path of nested dicts."""
    return "/".join(str(key.key) for key in key_path)


def frozen(params: PyTree, pattern: str | None) -> PyTree:
    """Return whether each leaf's path matches the pattern from its start.

    Raises:
      UsageError: not a regular expression.
    """
    if pattern is None:
        return jax.tree.map(lambda _: False, params)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--freeze={pattern!r} is not a regular expression: {error}") from error
    return jax.tree_util.tree_map_with_path(
        lambda path, _: expression.match(path_of(path)) is not None, params
    )
