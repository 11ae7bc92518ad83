"""Tables and pages of experiments.architectures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_jax.models.published import COMPARISON_SLIDE, SlideLayer
from cnn_jax.programs.layer_table import Analysis, Layer
from cnn_jax.reports import architecture_figures as figures
from cnn_jax.reports import html
from cnn_jax.reports.diagrams import block_diagram
from cnn_jax.reports.html import Html
from cnn_jax.weights.pretrained import PublishedFile

Row = Mapping[str, Any]


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return aligned columns: numbers to the right, the rest to the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [any(isinstance(v, (int, float)) for v in column) for column in zip(*rows, strict=True)]

    def line(values):
        pairs = zip(values, widths, right, strict=True)
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in pairs).rstrip()

    return "\n".join([line(header), *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _field(sizes: Sequence[int]) -> int | str:
    return sizes[0] if len(set(sizes)) == 1 else "x".join(map(str, sizes))


def _error(row: Row, which: str) -> float | None:
    return row["published"] and row["published"][which]


COMPARISON = [
    *("model", "pixels", "parameters", "MB", "MiB", "GMACs", "activations, M", "MB of them"),
    *("layers", "receptive field", "top-1 error, %", "top-5 error, %"),
]


def _comparison_row(row: Row) -> list[Any]:
    return [
        row["name"],
        row["image_size"],
        row["params"],
        row["size_mb"],
        row["size_mib"],
        row["macs"] / 1e9,
        row["activations"] / 1e6,
        row["activation_mb"],
        row["layers"],
        _field(row["receptive_field"]),
        _error(row, "top1_error"),
        _error(row, "top5_error"),
    ]


def comparison_text(rows: Sequence[Row]) -> str:
    """Return the table of all networks for the terminal, and the lecture's beside it."""
    parts = [text_table(COMPARISON, [_comparison_row(row) for row in rows])]
    lecture = _lecture_rows(rows)
    parts += ["", "The lecture's comparison slide:", text_table(LECTURE, lecture)]
    for name, slide in COMPARISON_SLIDE.items():
        parts += [f"{name}: {remark}" for remark in slide.remarks]
    return "\n".join(parts)


LECTURE = [
    *("model", "size on the slide", "MB", "MiB", "layers on the slide", "layers"),
    *("with weights", "errors on the slide, %", "published, %"),
]


def _lecture_rows(rows: Sequence[Row]) -> list[list[Any]]:
    table = []
    for row in rows:
        slide = row["lecture"]
        if slide is None:
            continue
        ours = [_error(row, which) for which in ("top1_error", "top5_error")]
        table.append(
            [
                row["name"],
                slide["size_mb"],
                row["size_mb"],
                row["size_mib"],
                slide["layers"],
                row["layers"],
                row["weighted_layers"],
                f"{slide['top1_error']:.2f} / {slide['top5_error']:.2f}",
                " / ".join(map(_cell, ours)),
            ]
        )
    return table


def comparison_sections(rows: Sequence[Row], workdir: Path) -> list[Html]:
    """Draw the pictures into workdir/figures and return the page's sections."""
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)

    def picture(name, figure, caption):
        return html.figure(html.figure_png(figure, folder / f"{name}.png"), caption)

    modules = []
    for name, (title, _, shape) in figures.MODULES.items():
        net = figures.analyse_module(name)
        caption = (
            f"{title}: {'x'.join(map(str, shape))} to {'x'.join(map(str, net.layers[-1].output))}, "
            f"{net.parameters:,} parameters, {net.macs:,} multiply-accumulates"
        )
        modules.append(picture(name, block_diagram(net, title), caption))
    sources: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["published"]:
            key = row["published"]["protocol"], row["published"]["source"]
            sources.setdefault(key, []).append(row["name"])
    remarks = [
        html.table(
            ["network", "why the slide differs"],
            [
                (name, remark)
                for name, slide in COMPARISON_SLIDE.items()
                for remark in slide.remarks
            ],
        )
    ]
    return [
        html.section(
            "Error against cost",
            "Published top-1 errors on ImageNet, of one centre crop; areas are proportional to the "
            "other cost. Names stand where there is room; all numbers are in the table below.",
            picture("error_macs", figures.bubbles(rows, "macs"), "Against multiply-accumulates"),
            picture("error_params", figures.bubbles(rows, "params"), "Against parameters"),
        ),
        html.section(
            "The lecture's table",
            "What the comparison slide states, beside what is counted and published.",
            html.table(LECTURE, _lecture_rows(rows)),
            *remarks,
        ),
        html.section(
            "Modules",
            "Drawn from the traced graphs; a box is a convolution, pooling or sum with what "
            "follows it, and the number after a convolution its filters.",
            html.figures(*modules),
        ),
        html.section(
            "All networks",
            "Sizes are those of the trained parameters in float32. Activations are the numbers in "
            "the input and in the outputs of convolutions, dense layers and poolings. Layers are "
            "those with weights on the longest path, squeeze-and-excitation included. Receptive "
            "fields are those of the last units that have a place, with the padding.",
            html.table(COMPARISON, [_comparison_row(row) for row in rows]),
            html.table(
                ["errors of", "protocol", "source"],
                [(", ".join(names), *key) for key, names in sources.items()],
                "Sources",
            ),
        ),
    ]


LAYERS = [
    *("layer", "operation", "output", "numbers", "MB", "parameters", "weights", "MACs"),
    *("receptive field", "depth"),
]


def _layer_row(layer: Layer) -> list[Any]:
    return [
        layer.path,
        layer.operation,
        "x".join(map(str, layer.output)),
        layer.activations,
        layer.bytes / 1e6,
        layer.parameters,
        layer.weights,
        layer.macs,
        _field(layer.receptive_field),
        layer.depth,
    ]


SLIDE = ["slide: layer", "slide: size", "slide: memory", "slide: parameters"]


def _layer_rows(net: Analysis, slide: Sequence[SlideLayer]) -> tuple[list[str], list[list[Any]]]:
    rows = [_layer_row(layer) for layer in net.layers if layer.kind != "other"]
    if not slide:
        return LAYERS, rows
    return LAYERS + SLIDE, [row + list(given) for row, given in zip(rows, slide, strict=True)]


def _totals(net: Analysis) -> dict[str, Any]:
    shown = [layer for layer in net.layers if layer.kind != "other"]
    return {
        "numbers in these rows": net.activations,
        "MB": sum(layer.bytes for layer in shown) / 1e6,
        "parameters": net.parameters,
        "weights alone": sum(layer.weights for layer in net.layers),
        "MACs": net.macs,
        "layers with weights on the longest path": net.depth,
        "numbers, all layers counted": net.activations_of_all,
    }


def layers_text(
    name: str, net: Analysis, slide: Sequence[SlideLayer], remarks: Sequence[str]
) -> str:
    """Return one network's table for the terminal."""
    totals = [f"{key}: {_cell(value)}" for key, value in _totals(net).items()]
    return "\n".join([name, text_table(*_layer_rows(net, slide)), "", *totals, *remarks])


def layers_sections(
    net: Analysis, slide: Sequence[SlideLayer], remarks: Sequence[str]
) -> list[Html]:
    """Return the sections of one network's page."""
    others = [
        [layer.path, layer.operation, "x".join(map(str, layer.output)), layer.parameters]
        for layer in net.layers
        if layer.kind == "other"
    ]
    return [
        html.section("In all", html.metrics(_totals(net)), *remarks),
        html.section(
            "Layers",
            "Convolutions, dense layers and poolings. Receptive fields are in pixels, padding "
            "included.",
            html.table(*_layer_rows(net, slide)),
        ),
        html.section(
            "The others",
            html.table(["layer", "operation", "output", "parameters"], others),
        ),
    ]


def pretrained_text(rows: Sequence[PublishedFile]) -> str:
    """Return the table of published weights: what --weights calls them and where they lie."""
    header = (
        "model",
        "--weights",
        "pixels",
        "resize",
        "classes",
        "top-1",
        "top-5",
        "licence",
        "address",
    )
    return text_table(
        header,
        [
            (
                *(row.model, row.tag, row.image_size, row.resize, row.classes),
                *("-" if each is None else f"{each:.2f}" for each in (row.top1, row.top5)),
                row.license or "-",
                row.url,
            )
            for row in rows
        ],
    )
