"""The machine and the versions a measurement belongs to, and what a device can do at best."""

import importlib.metadata
import multiprocessing
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnn_jax.runtime.cores import cores

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


def processor_seconds() -> float:
    """Return the processor time of this process and, on Linux, of those that work for it."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        with suppress(OSError):  # there is no such file elsewhere, or it has just ended
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


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


# Dense matrix units, without sparsity, by the beginning of JAX's device kind, in TFLOP/s. float32
# is what JAX computes float32 convolutions in by default: TF32 on NVIDIA's, bfloat16 on TPUs.
_PEAKS = {
    # NVIDIA's data sheets of each chip
    "NVIDIA B200": {"bfloat16": 2250, "float32": 1125},
    "NVIDIA H200": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA H100 PCIe": {"bfloat16": 756, "float32": 378},
    "NVIDIA H100 NVL": {"bfloat16": 835, "float32": 417.5},
    "NVIDIA H100": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA GH200": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA A100": {"bfloat16": 312, "float32": 156},
    "NVIDIA A10G": {"bfloat16": 70, "float32": 35},
    "NVIDIA L40S": {"bfloat16": 362, "float32": 183},
    "NVIDIA L4": {"bfloat16": 121, "float32": 60},
    # "NVIDIA Ada GPU architecture", appendix A, with float32 accumulation
    "NVIDIA GeForce RTX 4090": {"bfloat16": 165.2, "float32": 82.6},
    # cloud.google.com/tpu/docs/system-architecture; a device of v2 and v3 is one of two cores
    "TPU v2": {"bfloat16": 22.5, "float32": 22.5},
    "TPU v3": {"bfloat16": 61.5, "float32": 61.5},
    "TPU v4": {"bfloat16": 275, "float32": 275},
    "TPU v5 lite": {"bfloat16": 197, "float32": 197},
    "TPU v5e": {"bfloat16": 197, "float32": 197},
    "TPU v5": {"bfloat16": 459, "float32": 459},
    "TPU v6": {"bfloat16": 918, "float32": 918},
}

# Side of the matrices whose product shows what a CPU can do.
MATRIX_SIDE = 2048


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Return the device's peak in FLOP/s; None for one that is not in the table."""
    fitting = [name for name in _PEAKS if f"{device_kind} ".startswith((f"{name} ", f"{name}-"))]
    return _PEAKS[max(fitting, key=len)][dtype] * 1e12 if fitting else None
