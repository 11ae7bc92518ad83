"""The playground as one HTML file that asks no host for anything: code, style and data inside."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from cnn_jax.playground import datasets

_PACKAGE = resources.files(__package__)


def render(
    data: Sequence[datasets.Embedded] | None = None,
    network: Mapping[str, Any] | None = None,
    server: str | None = None,
) -> str:
    """Return the page.

    Args:
      data: the data sets that it offers, the first one by default; None: digits and shapes.
      network: a trained network that it opens with, see `cnn_jax.playground.network.embed`.
      server: None for a page that stands alone; else the page shows the panel of the server that
        it comes from, and this is the token that the server wants, "" where it wants none.
    """
    sets = [datasets.digits(), datasets.shapes()] if data is None else data
    content = {"datasets": [each.as_json() for each in sets], "network": network}
    meta = "" if server is None else f'<meta name="cnn-jax-server" content="{html.escape(server)}">'
    parts = {
        "<!--meta-->": meta,
        "/*style*/": _read("browser/style.css"),
        "/*data*/": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
        "/*bundle*/": _read("bundle.js"),
    }
    page = _read("browser/index.html")
    for place, part in parts.items():
        before, after = page.split(place, 1)
        page = before + part + after
    return page


def _read(name: str) -> str:
    return _PACKAGE.joinpath(name).read_text(encoding="utf-8")
