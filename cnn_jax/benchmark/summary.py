"""The arithmetic on what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn_jax.benchmark import machine
from cnn_jax.benchmark.spec import Spec


def summarize(
    spec: Spec,
    described: Mapping[str, Any],
    cold: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, list[float]],
    pilot: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the results, by name.

    FLOPs and their peak are those of all devices together.

    Args:
      cold: the facts of JAX's worker that found an empty cache.
      facts, seconds: by side, "jax" and perhaps the other's name: what it found out, and seconds
        of a call by turn.
      pilot: how the ways to run PyTorch were chosen from.
    """
    jax = facts["jax"]
    flops = jax.get("flops")
    peak_flops, source = _peak(spec, facts)
    sides = {name: _side(facts[name], seconds[name], flops, peak_flops) for name in facts}
    if "compile_seconds" in jax:
        sides["jax"]["compile"] = {
            "trace_seconds": cold["trace_seconds"],
            "cold_seconds": cold["compile_seconds"],
            "cached_seconds": jax["compile_seconds"],
        }
        # one that comes from the cache does not always know
        sides["jax"]["memory"]["program_bytes"] = cold["program_bytes"]
    results = {
        "spec": {name: value for name, value in spec._asdict().items() if name not in _PRIVATE},
        "machine": {
            **described,
            **{name: jax[name] for name in _OF_DEVICE},
        },
        "parameters": jax.get("parameters"),
        "flops": flops,
        "flops_per_image": None if flops is None else flops / jax["images_per_call"],
        "peak_flops": peak_flops,
        "peak_source": source,
        "sides": sides,
    }
    for other in sides.keys() - {"jax"}:
        compared = ratio(seconds["jax"], seconds[other])
        results["comparison"] = {"of": "jax", "over": other, "time_ratio": compared}
        results["pilot"] = pilot
    return results


_OF_DEVICE = ("platform", "device_kind", "device_count", "xla_flags")
_OF_SIDE = (
    *("layout", "omp_wait_policy", "threads"),
    *("first_call_seconds", "calls", "idle_cpu_share", "matrix_flops", "outcome"),
)
_PRIVATE = ("images", "workload", "layout")  # temporary files, and what differs between sides


def _peak(spec: Spec, facts: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, str | None]:
    """FLOP/s of the devices, and where the number is from."""
    jax = facts["jax"]
    if jax["platform"] == "cpu":
        side = machine.MATRIX_SIDE
        best = max(fact["matrix_flops"] for fact in facts.values())
        return best, f"measured: the fastest {side} x {side} {spec.dtype} matrix product of the run"
    known = machine.peak_flops(jax["device_kind"], spec.dtype)
    if known is None:
        return None, None
    return known * jax["device_count"], f"published for {jax['device_kind']}, {spec.dtype}"


def _side(
    facts: Mapping[str, Any], seconds: list[float], flops: float | None, peak_flops: float | None
) -> dict[str, Any]:
    times = distribution([1000 * each for each in seconds])
    known = flops is not None and peak_flops is not None
    return {
        "milliseconds": times,
        "images_per_second": distribution([facts["images_per_call"] / each for each in seconds]),
        "flop_utilization": 1000 * flops / times["median"] / peak_flops if known else None,
        "memory": {name: facts[name] for name in ("peak_device_bytes", "peak_rss_bytes")},
        **{name: facts[name] for name in _OF_SIDE if name in facts},
    }


def distribution(values: Sequence[float]) -> dict[str, Any]:
    """Return the median, the quartiles between which half of the values lie, and the values."""
    first, median, third = np.quantile(np.asarray(values, float), (0.25, 0.5, 0.75))
    return {
        "median": float(median),
        "first_quartile": float(first),
        "third_quartile": float(third),
        "values": [float(value) for value in values],
    }


def ratio(of: Sequence[float], over: Sequence[float]) -> dict[str, Any]:
    """Return the summary of the neighbours' ratios, turn by turn."""
    return distribution([one / other for one, other in zip(of, over, strict=True)])
