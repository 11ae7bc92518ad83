"""The flag that says how much memory a network's values may take."""

from absl import flags

_MEMORY_LIMIT = flags.DEFINE_float(
    "memory_limit",
    4.0,
    "GiB that the network's values may take; sets how much is computed at once.",
    lower_bound=0,
    module_name="Computation",
)


def limit() -> float:
    """Return the memory limit in bytes."""
    return _MEMORY_LIMIT.value * 2**30
