"""What a compiler counts in a training step, as lines of text and as a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_jax.reports import html
from cnn_jax.reports.html import Html

Results = Mapping[str, Any]

_NAMES = {
    "bytes_accessed": ("GB accessed", 1e9),
    "main_memory_bytes": ("GB of the main memory", 1e9),
    "flops": ("GFLOP", 1e9),
    "peak_bytes": ("peak GiB", 2**30),
    "collectives": ("collectives", 1),
    "collective_bytes": ("MB of collectives", 1e6),
}
_TRAFFIC = ["side", "operations", "GB of the main memory", "share", "GB of all memories"]
_TRAFFIC_NOTE = (
    "What operations read and write, each operand once, with all that is fused into them. The GB "
    "accessed above are the compiler's sum: of all memories, an operand twice if used in two ways."
)


def title(results: Results) -> str:
    """Return "resnet50, batch 512, 224 x 224 pixels, bfloat16, on v5e:2x2"."""
    spec = results["spec"]
    size = f"{spec['image_size']} x {spec['image_size']} pixels"
    batch = f"batch {spec['batch_size']}"
    return f"{spec['model']}, {batch}, {size}, {spec['dtype']}, on {spec['topology']}"


def introduction(results: Results) -> str:
    """Return the line that says what was counted."""
    return (
        f"One training step on each of {results['devices']} x {results['device_kind']}, counted by "
        "their own compiler; nothing was run."
    )


def lines(results: Results) -> list[str]:
    """Return what the terminal shows: the subject, a line a side, and the ratios."""
    text = [f"a training step of {title(results)}, on each device"]
    for side, found in results["sides"].items():
        counts = (
            f"{found[name] / unit:.4g} {words}"
            for name, (words, unit) in _NAMES.items()
            if found[name] is not None
        )
        text.append(f"{side}: {', '.join(counts)}")
    if "ratios" in results:
        ratios = (
            f"{ratio:.3f} of the {_NAMES[name][0]}"
            for name, ratio in results["ratios"].items()
            if ratio is not None
        )
        text.append(f"jax over {results['spec']['against']}: {', '.join(ratios)}")
    return text


def sections(results: Results, folder: Path) -> list[Html]:
    """Return the page's sections; nothing is left in the folder."""
    del folder
    sides = results["sides"]
    rows = [
        [words]
        + [None if found[name] is None else found[name] / unit for found in sides.values()]
        + ([results["ratios"][name]] if "ratios" in results else [])
        for name, (words, unit) in _NAMES.items()
    ]
    over = [f"jax over {results['spec']['against']}"] if "ratios" in results else []
    collectives = [
        [side, kind, each["count"], each["bytes"] / 1e6]
        for side, found in sides.items()
        for kind, each in found["by_kind"].items()
    ]
    traffic = [
        [side, kind, each["main"] / 1e9, each["main"] / found["main_memory_bytes"]]
        + [each["all"] / 1e9]
        for side, found in sides.items()
        for kind, each in sorted(found["traffic"].items(), key=lambda item: -item[1]["main"])
        if each["main"]
    ]
    times = [
        [side, *(1000 * found["bounds"][name] for name in ("arithmetic", "memory", "network"))]
        for side, found in sides.items()
        if found["bounds"]["seconds"] is not None
    ]
    made = [
        html.section("The step", html.table(["", *sides, *over], rows, "Of each device.")),
        html.section("Where the bytes go", html.table(_TRAFFIC, traffic), _TRAFFIC_NOTE),
        html.section(
            "Communication", html.table(["side", "collective", "count", "MB"], collectives)
        ),
    ]
    if times:
        names = ["side", "arithmetic, ms", "memory, ms", "network, ms"]
        note = "No step is faster than the largest of these, at the device's published peaks."
        made.append(html.section("Bounds", html.table(names, times), note))
    machine = [[name, str(value)] for name, value in results["machine"].items()]
    return [*made, html.section("Machine and versions", html.table(["", ""], machine))]
