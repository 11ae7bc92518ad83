"""JAX's side of a measurement: compiling, counting, memory."""

import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.benchmark.jax_tasks import TASKS
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.spec import Spec
from cnn_jax.programs import flops

OutOfMemory = jax.errors.JaxRuntimeError


def prepare(spec: Spec) -> tuple[Program, dict[str, Any]]:
    """Return the compiled program and its facts.

    trace_seconds: to the jaxpr and on to XLA's input; compile_seconds: from there, by XLA, or by
    loading from the persistent cache.
    flops: of a call, on all devices; None where only the data says.
    program_bytes: what a call holds on a device, arguments, results and temporary arrays, as the
    compiler planned it.
    """
    program = TASKS[spec.task].program(spec)
    facts = dict(program.facts)
    if hasattr(program.call, "lower"):
        compiled, measured = _compile(program.call, program.state, next(program.batches))
        program = program._replace(call=compiled)
        facts |= measured
    device = jax.devices()[0]
    facts |= {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "device_count": jax.device_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    return program, facts


def _compile(function: Callable, *arguments: Any) -> tuple[Callable, dict[str, Any]]:
    start = time.perf_counter()
    traced = function.trace(*arguments)
    lowered = traced.lower()
    traced_at = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    multiply_adds = flops.multiply_adds(traced.jaxpr)
    return compiled, {
        "trace_seconds": traced_at - start,
        "compile_seconds": compiled_at - traced_at,
        "flops": None if math.isnan(multiply_adds) else 2 * multiply_adds,
        "program_bytes": _program_bytes(compiled),
    }


def _program_bytes(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def peak_device_bytes() -> int | None:
    """Return the most memory that was in use on the first device; None where it does not say."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def matrix_product(side: int, dtype: str) -> Callable[[], None]:
    """Return a function that multiplies two square matrices and waits."""
    product = jax.jit(jnp.matmul)
    matrix = jnp.ones((side, side), dtype)
    return lambda: product(matrix, matrix).block_until_ready()
