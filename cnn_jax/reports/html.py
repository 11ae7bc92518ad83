"""A report as one HTML file that needs no other: text, numbers, tables and PNG pictures.

    curve = html.figure_png(fig, workdir / "loss.png")
    page = html.page(
        "ResNet-20 on digits",
        "What was trained, and on what.",
        html.section("Result", html.metrics({"test accuracy": "98.6 %"})),
        html.section("Training", "The loss of each step.", html.figure(curve, "Loss")),
    )

Every function returns Html and escapes the text it is given; plain text in a section becomes a
paragraph.
"""

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # a page without figures does without matplotlib, which takes half a second
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --text: #1c2330; --quiet: #5f6b7c; --page: #f6f7f9;
  --card: #fff; --line: #e1e5ea; --accent: #2563b8; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ee; --quiet: #97a3b4;
  --page: #12161c; --card: #1b212a; --line: #2f3845; --accent: #7db3f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.25rem 4rem; max-width: 62rem; color: var(--text);
  background: var(--page); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
header { border-bottom: 3px solid var(--accent); margin-bottom: 2rem; padding-bottom: .5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 0 0 .75rem; }
header p { color: var(--quiet); font-size: 1.1rem; margin: 0 0 .75rem; max-width: 46rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  margin: 1.25rem 0; padding: 1.25rem 1.5rem; }
p { margin: .5rem 0; max-width: 46rem; }
dl { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr));
  margin: .5rem 0; }
dl div { border-left: 3px solid var(--accent); padding-left: .75rem; }
dt { color: var(--quiet); font-size: .85rem; }
dd { font-size: 1.5rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: .75rem 0; min-width: 0; }
img { background: #fff; border-radius: .4rem; display: block; height: auto; max-width: 100%; }
figcaption, caption { color: var(--quiet); font-size: .9rem; padding: .35rem 0; text-align: left; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .9rem .35rem 0; text-align: left;
  vertical-align: top; }
th { color: var(--quiet); font-size: .85rem; font-weight: 600; }
.number { padding: .35rem 1.25rem; text-align: right; }
td.number { white-space: nowrap; }
"""


class Html(str):
    """Text that is HTML already, where a plain str is still to be escaped."""


def page(title: str, introduction: str, *sections: Html) -> Html:
    """A whole page, in ASCII, that loads nothing from anywhere."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
    )
    header = f"<header>\n<h1>{html.escape(title)}</h1>\n{paragraph(introduction)}\n</header>"
    body = "\n".join(["<body>", header, *sections, "</body>", "</html>", ""])
    return Html((head + body).encode("ascii", "xmlcharrefreplace").decode())


def section(title: str, *parts: str) -> Html:
    """A titled section of paragraphs (plain text) and of what the functions here return."""
    inner = [part if isinstance(part, Html) else paragraph(part) for part in parts]
    return Html("\n".join(["<section>", f"<h2>{html.escape(title)}</h2>", *inner, "</section>"]))


def metrics(values: Mapping[str, Any]) -> Html:
    """A strip of a few numbers, or short texts, in large type above their names."""
    items = [
        f"<div><dt>{html.escape(name)}</dt><dd>{_cell(value)}</dd></div>"
        for name, value in values.items()
    ]
    return Html("\n".join(["<dl>", *items, "</dl>"]))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Html:
    """A table: numbers right-aligned with four digits, integers with thousands, None as a dash."""
    rows = [list(row) for row in rows]
    numeric = [
        any(_is_number(value) for value in column)
        and all(_is_number(value) or value is None for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(header)

    def line(tag: str, cells: Iterable[str]) -> str:
        marks = [' class="number"' if number else "" for number in numeric]
        pairs = zip(cells, marks, strict=True)
        return "<tr>" + "".join(f"<{tag}{mark}>{cell}</{tag}>" for cell, mark in pairs) + "</tr>"

    return Html(
        "\n".join(
            [
                '<div class="table"><table>',
                f"<caption>{html.escape(caption)}</caption>" if caption else "",
                f"<thead>{line('th', map(html.escape, header))}</thead>",
                "<tbody>",
                *(line("td", map(_cell, row)) for row in rows),
                "</tbody></table></div>",
            ]
        )
    )


def figure(png: bytes, caption: str) -> Html:
    """A picture, shown in the size its resolution gives it (96 dots an inch if it states none)."""
    with Image.open(io.BytesIO(png)) as image:
        width = round(image.width * 96 / image.info.get("dpi", (96, 96))[0])
    data = base64.b64encode(png).decode()
    text = html.escape(caption)
    return Html(
        f'<figure><img width="{width}" alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def links(pages: Mapping[str, str]) -> Html:
    """A list of links, address -> text, to pages beside this one."""
    items = [
        f'<li><a href="{html.escape(address)}">{html.escape(text)}</a></li>'
        for address, text in pages.items()
    ]
    return Html("\n".join(["<ul>", *items, "</ul>"]))


def figures(*several: Html) -> Html:
    """Figures side by side, as many in a row as there is room for."""
    return Html("\n".join(['<div class="figures">', *several, "</div>"]))


def figure_png(fig: "Figure", path: str | os.PathLike | None = None) -> bytes:
    """Draws a figure without a display as PNG of 192 dots an inch, saved too if a path is given.

    Its texts are drawn as they are written: a dollar in a name begins no formula. A
    `matplotlib.figure.Figure()` made without pyplot is freed by itself.
    """
    _keep_dollars(fig)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=192, bbox_inches="tight")
    if path is not None:
        Path(path).write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _keep_dollars(fig: "Figure") -> None:
    """Turns matplotlib's formulas off, but for the powers of ten that it writes at an axis."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    powers = set()
    for axes in fig.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_ticklabels(which="both")  # made here, so that they are found below
            if isinstance(axis.get_major_formatter(), LogFormatter):
                powers.update(labels)
    for text in fig.findobj(Text):
        if text not in powers:
            text.set_parse_math(False)


def paragraph(text: str) -> Html:
    """A paragraph of plain text."""
    return Html(f"<p>{html.escape(text)}</p>")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    if _is_number(value):
        return f"{value:.4g}"
    return html.escape(str(value))
