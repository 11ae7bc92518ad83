"""Functions as arguments of jitted functions."""

from collections.abc import Callable

from jax.tree_util import Partial


def as_partial(f: Callable) -> Partial:
    """Return f as an argument of jitted functions.

    `Partial(f, variables)` passes its variables as arrays that are traced, not baked in. Any other
    function is known by its identity: give the same object again, and its programs are found again.
    """
    return f if isinstance(f, Partial) else Partial(f)
