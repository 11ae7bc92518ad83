"""Code from outside of this package: by its address "package.module:function", or by registration.

A plugin is a module that is imported for what it registers, by cnn_jax.register_model and its kin.
A function that is named by its address needs no registration.
"""

import importlib
import os
import re
import sys
from collections.abc import Iterable, MutableMapping
from types import ModuleType
from typing import Any

from cnn_jax.errors import UsageError

# What was registered from outside, by kind: "model", "attack", ...
REGISTERED: dict[str, list[str]] = {}


def register(table: MutableMapping[str, Any], kind: str, name: str, row: Any) -> None:
    """Add a row to a table of this package.

    Raises:
      UsageError: the name is taken, or no flag could name it.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(
            f"cannot register the {kind} {name!r}; a name has letters, digits and . _ - alone"
        )
    if name in table:
        article = "an" if kind[0] in "aeiou" else "a"
        raise UsageError(
            f"there is {article} {kind} {name!r} already; register yours by another name"
        )
    table[name] = row
    REGISTERED.setdefault(kind, []).append(name)


def load(modules: Iterable[str]) -> None:
    """Import the modules, which register what they bring.

    Raises:
      UsageError: a module that is not there, or imports one that is not.
    """
    for module in modules:
        _import(module, f"--plugin={module}")


def is_address(name: str) -> bool:
    """Return whether a name is written as "package.module:function"."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*", name) is not None


def find(address: str, kind: str) -> Any:
    """Return what the address "package.module:function" names.

    Args:
      kind: what it is to be, for messages.

    Raises:
      UsageError: no such module, or it has nothing of this name.
    """
    name, _, attribute = address.partition(":")
    module = _import(name, f"the {kind} {address}")
    if not hasattr(module, attribute):
        where = getattr(module, "__file__", None) or name
        raise UsageError(f"the {kind} {address} is not there: {where} has no {attribute!r}")
    return getattr(module, attribute)


def search_working_directory() -> None:
    """Let modules of the working directory be imported, after all others."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)


def _import(name: str, wanted: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"cannot import {name} for {wanted}: {error}; run this in the folder that holds it, "
            "install it, or put its folder into PYTHONPATH"
        ) from error
