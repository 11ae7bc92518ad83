"""The sections of a plan: what a step takes on each topology, and how it scales."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cnn_jax.programs.plan import CHIPS
from cnn_jax.reports import html
from cnn_jax.reports.figures import BLUE, ORANGE
from cnn_jax.reports.html import Html

Row = Mapping[str, Any]


def images_per_second(row: Row) -> float | None:
    """Return the images a second that the bounds allow, on all devices together."""
    seconds = row["bounds"]["seconds"]
    return None if not seconds else row["batch_size"] / seconds


def line(row: Row) -> str:
    """Return what is printed of a topology."""
    collectives = ", ".join(
        f"{each['count']} {kind} of {each['bytes'] / 1e6:.1f} MB"
        for kind, each in row["collectives"].items()
    )
    parts = [
        f"{row['flops'] / 1e9:.4g} GFLOP",
        f"{row['bytes_accessed'] / 1e9:.4g} GB accessed, "
        f"{row['main_memory_bytes'] / 1e9:.4g} of the main memory",
        f"peak {row['peak_bytes'] / 2**30:.3g} GiB",
        collectives or "no collectives",
    ]
    if row["fits"] is not None:
        slowest = max(("arithmetic", "memory", "network"), key=lambda name: row["bounds"][name])
        parts.append("fits" if row["fits"] else "does not fit")
        parts.append(f"a batch of about {row['largest_batch']:,} would fit")
        parts.append(f"{images_per_second(row):,.0f} images/s at most, bound by the {slowest}")
    return f"{row['topology']}, each device and step: " + "; ".join(parts)


def sections(rows: Sequence[Row], folder: Path) -> list[Html]:
    """Return the page's sections; scaling.png is left in the folder where there are several."""
    step = html.table(
        ["topology", "devices", "batch", "GFLOP", "GB accessed", "GB of the main memory"]
        + ["peak GiB", "arguments GiB", "temporaries GiB", "fits", "largest batch, about"],
        [
            [
                row["topology"],
                row["devices"],
                row["batch_size"],
                row["flops"] / 1e9,
                row["bytes_accessed"] / 1e9,
                row["main_memory_bytes"] / 1e9,
                *(row[f"{name}_bytes"] / 2**30 for name in ("peak", "argument", "temporary")),
                {True: "yes", False: "no", None: None}[row["fits"]],
                row["largest_batch"],
            ]
            for row in rows
        ],
        "Of each device and each step.",
    )
    communication = html.table(
        ["topology", "collective", "count", "MB"],
        [
            [row["topology"], kind, each["count"], each["bytes"] / 1e6]
            for row in rows
            for kind, each in row["collectives"].items()
        ],
        "Bytes are those of the results on one device.",
    )
    made = [
        html.section("The step", step),
        html.section("Communication", communication),
    ]
    known = [row for row in rows if row["bounds"]["seconds"] is not None]
    if known:
        made.append(_bounds(known))
    if len(known) > 1:
        png = html.figure_png(scaling(known), folder / "scaling.png")
        caption = "Images a second that the bounds allow, against the number of devices."
        made.append(html.section("Scaling", html.figure(png, caption)))
    return made


def _bounds(rows: Sequence[Row]) -> Html:
    kinds = {row["device_kind"] for row in rows}
    peaks = html.table(
        ["device", "TFLOP/s, bfloat16", "GB/s of memory", "GiB", "GB/s of network"],
        [
            [name, each.flops / 1e12, each.memory_bandwidth / 1e9, each.memory / 2**30]
            + [each.network / 1e9]
            for name, each in CHIPS.items()
            if any(f"{kind} ".startswith(f"{name} ") for kind in kinds)
        ],
        "Published peaks.",
    )
    times = html.table(
        ["topology", "arithmetic, ms", "memory, ms", "network, ms", "images/s at most"],
        [
            [row["topology"]]
            + [1000 * row["bounds"][name] for name in ("arithmetic", "memory", "network")]
            + [images_per_second(row)]
            for row in rows
        ],
    )
    return html.section(
        "Bounds",
        "No step is faster than the largest of its three times at the chip's published peaks, if "
        "they overlap wholly. The network is taken as rings over all links at once; the input is "
        "taken to keep up.",
        times,
        peaks,
    )


def scaling(rows: Sequence[Row]) -> Figure:
    """Draw images a second against the number of devices, beside perfect scaling."""
    rows = sorted(rows, key=lambda row: row["devices"])
    devices = [row["devices"] for row in rows]
    rates = [images_per_second(row) for row in rows]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    perfect = [rates[0] * count / devices[0] for count in devices]
    axes.plot(devices, perfect, "--", color=ORANGE, label="perfect scaling")
    axes.plot(devices, rates, "o-", color=BLUE, label="bound")
    axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="images a second, at most")
    axes.set_xticks(devices, [str(count) for count in devices])
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
