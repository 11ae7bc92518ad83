"""The results of a measurement as lines of text and as a page."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnn_jax.reports import html
from cnn_jax.reports.html import Html

Results = Mapping[str, Any]


def lines(results: Results) -> list[str]:
    """Return what the terminal shows: the subject, a line a side, and the ratio."""
    text = [f"{title(results)}, on {_hardware(results)}"]
    for name, side in results["sides"].items():
        line = f"{name}: {_spread(side['milliseconds'])} ms a call"
        line += f", {side['images_per_second']['median']:,.1f} images/s"
        if side["flop_utilization"] is not None:
            line += f", {side['flop_utilization']:.1%} of the peak"
        if "compile" in side:
            seconds = side["compile"]
            line += f", compiled in {seconds['cold_seconds']:.1f} s"
            line += f" ({seconds['cached_seconds']:.1f} s from the cache)"
        for outcome, value in side.get("outcome", {}).items():
            line += f", {outcome.replace('_', ' ')} {value:.4g}"
        text.append(line)
    if "comparison" in results:
        comparison = results["comparison"]
        ratio = _spread(comparison["time_ratio"])
        text.append(f"time of jax over that of {comparison['over']}: {ratio}")
    return text


def title(results: Results) -> str:
    """Return "train resnet50, batch 16, 224 x 224 pixels, float32, synthetic input"."""
    spec = results["spec"]
    subject = "input" if results["parameters"] is None else f"{spec['task']} {spec['model']}"
    size = f"{spec['image_size']} x {spec['image_size']} pixels"
    return f"{subject}, batch {spec['batch_size']}, {size}, {spec['dtype']}, {spec['input']} input"


def introduction(results: Results) -> str:
    """Return the line that says what was measured on."""
    return f"Measured on {_hardware(results)}."


def sections(results: Results, folder: Path) -> list[Html]:
    """Return the page's sections; the picture is left in the folder as turns.png."""
    jax = results["sides"]["jax"]
    numbers = {
        "images a second": round(jax["images_per_second"]["median"], 1),
        "ms a call": round(jax["milliseconds"]["median"], 3),
    }
    if jax["flop_utilization"] is not None:
        numbers["of the peak"] = f"{jax['flop_utilization']:.1%}"
    if "comparison" in results:
        comparison = results["comparison"]
        numbers[f"time over that of {comparison['over']}"] = comparison["time_ratio"]["median"]
    turns = html.figure_png(_turns(results), folder / "turns.png")
    return [
        html.section(
            "Time",
            html.metrics(numbers),
            *_comparison(results),
            html.table(
                ["side", "ms a call", "1st quartile", "3rd quartile", "images/s", "of the peak"],
                [
                    [
                        name,
                        *_three(side["milliseconds"]),
                        side["images_per_second"]["median"],
                        side["flop_utilization"],
                    ]
                    for name, side in results["sides"].items()
                ],
            ),
            html.figure(turns, "Time of a call in each turn; the sides take turns."),
        ),
        *_compilation(jax),
        html.section(
            "Memory",
            html.table(
                ["side", "device, peak (MB)", "process, peak (MB)", "program, planned (MB)"],
                [
                    [
                        name,
                        *(
                            _megabytes(side["memory"].get(key))
                            for key in ("peak_device_bytes", "peak_rss_bytes", "program_bytes")
                        ),
                    ]
                    for name, side in results["sides"].items()
                ],
            ),
        ),
        *_outcome(results),
        *_work(results),
        html.section(
            "Machine and versions",
            html.table(["", ""], [[name, _text(x)] for name, x in results["machine"].items()]),
        ),
        html.section(
            "Settings",
            html.table(["", ""], [[name, _text(x)] for name, x in results["spec"].items()]),
        ),
    ]


def _comparison(results: Results) -> list[str]:
    if "comparison" not in results:
        return []
    comparison = results["comparison"]
    over, ratio = comparison["over"], _spread(comparison["time_ratio"])
    busy = max(side["idle_cpu_share"] for side in results["sides"].values())
    return [
        f"The time of jax over that of {over}, turn by turn: {ratio}. "
        f"Each side has a process of its own; while it waited for its turn it kept {busy:.3f} "
        "cores busy at most.",
        html.table(
            ["layout", "OMP_WAIT_POLICY", "ms a call, median"],
            [
                [way["layout"], way["omp_wait_policy"] or "not set", median(way["milliseconds"])]
                for way in results["pilot"]
                if way["milliseconds"]
            ],
            "The ways to run PyTorch, of which the fastest is measured.",
        )
        if len(results["pilot"]) > 1
        else "",
    ]


def _compilation(jax: Mapping[str, Any]) -> list[Html]:
    if "compile" not in jax:
        return []
    seconds = jax["compile"]
    rows = [
        ["tracing and lowering", seconds["trace_seconds"]],
        ["compiling, empty cache", seconds["cold_seconds"]],
        ["compiling, from the persistent cache", seconds["cached_seconds"]],
    ]
    note = "The cache keeps what took a tenth of a second or more to compile."
    return [html.section("Compilation", html.table(["", "seconds"], rows), note)]


def _outcome(results: Results) -> list[Html]:
    found = {name: side["outcome"] for name, side in results["sides"].items() if "outcome" in side}
    if not found:
        return []
    names = list(found["jax"])
    rows = [[side, *(values[name] for name in names)] for side, values in found.items()]
    return [html.section("Outcome", html.table(["side", *names], rows))]


def _work(results: Results) -> list[Html]:
    if results["flops"] is None:
        return []
    numbers = {
        "parameters": results["parameters"],
        "GFLOP an image": round(results["flops_per_image"] / 1e9, 3),
    }
    note = "FLOPs are two for each multiply-add of the convolutions and matrix products."
    if results["peak_flops"] is not None:
        numbers["peak, TFLOP/s"] = round(results["peak_flops"] / 1e12, 3)
        note += f" The peak is {results['peak_source']}."
    return [html.section("Work", html.metrics(numbers), note)]


def _turns(results: Results) -> Figure:
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for name, side in results["sides"].items():
        values = side["milliseconds"]["values"]
        axes.plot(range(1, len(values) + 1), values, "o-", markersize=4, label=name)
    axes.set(xlabel="turn", ylabel="ms a call", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _hardware(results: Results) -> str:
    machine = results["machine"]
    cpu = f"{machine['cores']} cores of {machine['cpu']}"
    if machine["platform"] == "cpu":
        return cpu
    return f"{machine['device_count']} x {machine['device_kind']} with {cpu}"


def _three(summary: Mapping[str, float]) -> tuple[float, float, float]:
    return summary["median"], summary["first_quartile"], summary["third_quartile"]


def _spread(summary: Mapping[str, float]) -> str:
    middle, first, third = _three(summary)
    return f"{middle:.4g} (half of the turns within {first:.4g} to {third:.4g})"


def _megabytes(number: int | None) -> float | None:
    return None if number is None else round(number / 1e6, 1)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
