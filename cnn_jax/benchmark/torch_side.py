"""PyTorch's side of a measurement."""

# pyright: reportMissingImports=false

import os
from collections.abc import Callable
from typing import Any

import torch

from cnn_jax.benchmark.machine import cores
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.torch_tasks import TASKS

OutOfMemory = torch.OutOfMemoryError


def prepare(spec: Spec) -> tuple[Program, dict[str, Any]]:
    """Return the program and its facts: threads as many as XLA takes, TF32 as XLA does."""
    torch.set_num_threads(cores())
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device = _device()
    program = TASKS[spec.task, spec.against](spec, device)
    if device.type == "cuda":
        kind, count = torch.cuda.get_device_name(), torch.cuda.device_count()
    else:
        kind, count = "cpu", 1
    return program, program.facts | {
        "platform": "gpu" if device.type == "cuda" else "cpu",
        "device_kind": kind,
        "device_count": count,
        "threads": torch.get_num_threads(),
    }


def _device() -> torch.device:
    """The GPU where there is one, unless JAX was told to leave it."""
    use_gpu = torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu"
    return torch.device("cuda" if use_gpu else "cpu")


def peak_device_bytes() -> int | None:
    """Return the most memory that tensors took on the GPU; None on the CPU."""
    return torch.cuda.max_memory_allocated() if _device().type == "cuda" else None


def matrix_product(side: int, dtype: str) -> Callable[[], None]:
    """Return a function that multiplies two square matrices."""
    matrix = torch.ones(side, side, dtype=getattr(torch, dtype))
    return lambda: torch.mm(matrix, matrix)
