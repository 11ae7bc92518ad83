"""The table of faults and what became of the runs that met them."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.reports import html
from cnn_jax.reports.html import Html

_HEADER = ("fault", "task", "processes", "ended with the same bits", "as it should", "told")


def _cells(row: Mapping[str, Any]) -> list[str]:
    bits = {True: "yes", False: "no", None: "not asked"}[row["same_bits"]]
    right = "yes" if row["as_it_should"] else "NO"
    return [row["fault"], row["task"], str(row["processes"]), bits, right, row["told"]]


def sections(rows: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Return the page's section."""
    note = "After each fault the same command was run again; told: what the first time ended with."
    return [html.section("Faults", html.table(_HEADER, [_cells(row) for row in rows], note))]


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table for a document."""
    lines = [_HEADER, ["---"] * len(_HEADER)]
    lines += [[cell.replace("|", "/") for cell in _cells(row)] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line."""
    right = sum(row["as_it_should"] for row in rows)
    kills = sum(row.get("kills", 0) for row in rows)
    return f"{right} of {len(rows)} runs ended as they should, {kills} kills among the faults"
