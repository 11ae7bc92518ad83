"""A network's graph as a picture: boxes for layers, arrows for what they read."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cnn_jax.programs.layer_table import Analysis

COLORS = {
    "input": "#e8ebf0",
    "conv": "#cfe0f8",
    "dense": "#cfe0f8",
    "pool": "#cfeedd",
    "other": "#fbe3c4",
}
WIDTH, HEIGHT, GAP_X, GAP_Y = 2.3, 0.62, 0.35, 0.5  # inches


class _Box(NamedTuple):
    lines: tuple[str, ...]
    kind: str
    inputs: tuple[int, ...]


def _boxes(net: Analysis) -> list[_Box]:
    """Put layers that only follow another's output (norm, ReLU) into its box."""
    readers: dict[int, int] = {}
    for row in net.layers:
        for source in row.inputs:
            readers[source] = readers.get(source, 0) + 1
    boxes: list[_Box] = []
    place: dict[int, int] = {}  # row -> box
    for index, row in enumerate(net.layers):
        follows = (
            row.kind == "other" and len(row.inputs) == 1 and readers[row.inputs[0]] == 1
        ) and row.inputs[0] != 0
        if follows:
            place[index] = place[row.inputs[0]]
            box = boxes[place[index]]
            boxes[place[index]] = box._replace(lines=(*box.lines, row.operation))
            continue
        place[index] = len(boxes)
        name = row.operation
        if row.kind in ("conv", "dense", "input"):
            name += f", {row.output[-1]}"
        boxes.append(_Box((name,), row.kind, tuple(place[i] for i in row.inputs)))
    return boxes


def _levels(boxes: Sequence[_Box]) -> list[int]:
    levels: list[int] = []
    for box in boxes:
        levels.append(1 + max((levels[i] for i in box.inputs), default=-1))
    return levels


def _lanes(boxes: Sequence[_Box], levels: Sequence[int]):
    """Return the chains of (level, node) of every edge, and the x of every node.

    A long edge gets a node on each level that it passes, and levels are ordered by the mean place
    of their neighbours (Sugiyama's method).
    """
    rows: list[list] = [[] for _ in range(max(levels) + 1)]
    for index in range(len(boxes)):
        rows[levels[index]].append(index)
    chains, links = [], {}
    for index, box in enumerate(boxes):
        for source in box.inputs:
            passed = [("edge", source, index, k) for k in range(levels[source] + 1, levels[index])]
            for k, node in enumerate(passed, levels[source] + 1):
                rows[k].append(node)
            chain = [source, *passed, index]
            chains.append(chain)
            for above, below in pairwise(chain):
                links.setdefault(below, []).append(above)
                links.setdefault(above, []).append(below)
    level_of = {node: k for k, row in enumerate(rows) for node in row}
    x = {node: float(i) for row in rows for i, node in enumerate(row)}
    for sweep in range(8):
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:

            def place(node, down=down):
                near = [n for n in links.get(node, ()) if (level_of[n] < level_of[node]) == down]
                return sum(x[n] for n in near) / len(near) if near else x[node]

            row.sort(key=place)
            for i, node in enumerate(row):
                x[node] = i - (len(row) - 1) / 2
    return chains, level_of, x


def block_diagram(net: Analysis, title: str = "") -> Figure:
    """Draw the graph from the input, at the top, down; meant for modules of up to 30 layers."""
    boxes = _boxes(net)
    levels = _levels(boxes)
    chains, level_of, x = _lanes(boxes, levels)
    lanes = [x[node] for node in level_of]
    lines = [
        max(len(b.lines) for b, k in zip(boxes, levels, strict=True) if k == level)
        for level in range(max(levels) + 1)
    ]
    heights = [HEIGHT * (0.55 + 0.3 * n) for n in lines]
    tops, y = [], 0.0
    for height in heights:
        tops.append(y)
        y += height + GAP_Y
    pitch = WIDTH + GAP_X
    left, right = min(lanes) * pitch - WIDTH / 2, max(lanes) * pitch + WIDTH / 2
    margin = 0.15
    size = (right - left + 2 * margin, y - GAP_Y + 2 * margin + (0.35 if title else 0))
    figure = Figure(figsize=(0.62 * size[0], 0.62 * size[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(y - GAP_Y + margin, -margin - (0.35 if title else 0))
    if title:
        axes.text((left + right) / 2, -0.28, title, ha="center", weight="bold", fontsize=9)

    def height_of(node):
        return HEIGHT * (0.55 + 0.3 * len(boxes[node].lines))

    def edge_of(node, bottom):
        level = level_of[node]
        middle = tops[level] + heights[level] / 2
        if isinstance(node, tuple):
            return x[node] * pitch, middle
        half = height_of(node) / 2
        return x[node] * pitch, middle + half if bottom else middle - half

    for chain in chains:
        points = [edge_of(chain[0], bottom=True)]
        for node in chain[1:-1]:  # straight down past the boxes of its level
            level = level_of[node]
            points += [
                (x[node] * pitch, tops[level]),
                (x[node] * pitch, tops[level] + heights[level]),
            ]
        end = edge_of(chain[-1], bottom=False)
        axes.plot(*zip(*points, end, strict=True), color="#5f6b7c", lw=1, zorder=1)
        axes.annotate(
            "", end, points[-1], arrowprops={"arrowstyle": "-|>", "color": "#5f6b7c", "lw": 1}
        )
    for node, box in enumerate(boxes):
        level = level_of[node]
        height = height_of(node)
        top = tops[level] + (heights[level] - height) / 2
        corner = (x[node] * pitch - WIDTH / 2, top)
        axes.add_patch(
            FancyBboxPatch(
                corner,
                WIDTH,
                height,
                boxstyle="round,pad=0,rounding_size=0.1",
                facecolor=COLORS[box.kind],
                edgecolor="#5f6b7c",
                lw=0.8,
                zorder=2,
            )
        )
        axes.text(
            x[node] * pitch,
            top + height / 2,
            "\n".join(box.lines),
            ha="center",
            va="center",
            fontsize=7.5,
            color="#1c2330",
            linespacing=1.15,
            zorder=3,
        )
    return figure
