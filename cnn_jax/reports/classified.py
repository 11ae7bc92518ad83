"""What a network takes photographs for: as lines, as CSV and as a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cnn_jax.reports import html
from cnn_jax.reports.html import Html

SHOWN = 100  # of a folder's photographs on a page


def lines(images: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each photograph: its likeliest classes."""
    width = max((len(Path(image["file"]).name) for image in images), default=0)
    return [
        f"{Path(image['file']).name:<{width}}  "
        + ", ".join(f"{each['name']} {each['probability']:.1%}" for each in image["classes"])
        for image in images
    ]


def write_csv(path: Path, images: Sequence[Mapping[str, Any]]) -> None:
    """Write a row for each photograph and class: file, rank, name, index, probability."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "rank", "name", "index", "probability"])
        for image in images:
            for rank, each in enumerate(image["classes"], 1):
                values = (each["name"], each["index"], f"{each['probability']:.6f}")
                writer.writerow([image["file"], rank, *values])


def section(
    images: Sequence[Mapping[str, Any]], shown: Sequence[Image.Image], broken: Mapping[str, str]
) -> Html:
    """Return the section with the table, and a picture of each of the first photographs.

    Args:
      shown: what the network saw of the first photographs.
    """
    count = max((len(image["classes"]) for image in images), default=0)
    rows = [
        (
            Path(image["file"]).name,
            *(f"{each['name']} {each['probability']:.1%}" for each in image["classes"]),
        )
        for image in images
    ]
    parts = [html.table(["photograph", *map(str, range(1, count + 1))], rows)]
    if broken:
        parts.append(html.table(["left out", "as"], list(broken.items())))
    pictures = []
    for image, picture in zip(images, shown, strict=False):
        png = io.BytesIO()
        picture.convert("RGB").save(png, "png")
        best = image["classes"][0]
        caption = f"{Path(image['file']).name}: {best['name']} {best['probability']:.1%}"
        pictures.append(html.figure(png.getvalue(), caption))
    return html.section("Classes", *parts, html.figures(*pictures))
