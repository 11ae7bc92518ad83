"""One form of every operation for all platforms and batch sizes, on request.

On a CPU some operations take forms of their own there, chosen by sizes that depend on the batch.
Under `portable()` none does: what is traced then is plain XLA, and the batch may be symbolic, as
jax.export has it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
from jaxtyping import Array

# part of the key of every cache of jax.jit: what is traced inside is not reused outside
_portable = jax.make_user_context(False)


def portable() -> AbstractContextManager:
    """Within this context the operations take the portable form, in jitted functions too."""
    return _portable(True)


def is_portable() -> bool:
    """Whether `portable()` holds."""
    return bool(_portable.value)


def by_platform(
    *operands: Array, cpu: Callable[..., Array], default: Callable[..., Array]
) -> Array:
    """Return cpu(*operands) where the program runs on a CPU, unless it is to be portable."""
    if is_portable():
        return default(*operands)
    return jax.lax.platform_dependent(*operands, cpu=cpu, default=default)
