"""The machine and the versions a measurement belongs to."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "torchvision")


def describe() -> dict[str, Any]:
    """Return the processor, the cores this process may use, the load now, and the versions."""
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "load_average": list(os.getloadavg()),
        "system": platform.platform(),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES"),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
