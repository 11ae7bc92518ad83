"""What a network says of photographs: as lines, as CSV, as masks' files and as a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax.answers import MEASURES, Answer
from cnn_jax.data import geometry
from cnn_jax.reports import html, mask_figures
from cnn_jax.reports.detection import COLOURS, draw_objects
from cnn_jax.reports.html import Html
from cnn_jax.tasks.average_precision import encoded

# what results.json calls it that is found in a photograph
KINDS = {
    "classification": "classes",
    "localization": "classes",
    "detection": "objects",
    "segmentation": "regions",
}
TITLES = {
    "classification": "Photographs by class",
    "localization": "Photographs by class, with a box",
    "detection": "Objects in photographs",
    "segmentation": "Photographs by regions",
}
SHOWN = 100  # of a folder's photographs on a page
_SIDE = 480  # pixels, of the longer side of a photograph with boxes or masks on the page
_LEGEND_COLUMNS = 3


def _shown(found: Mapping[str, Any]) -> str:
    value = next(found[name] for name in MEASURES.values() if name in found)
    return f"{found['name']} {value:.1%}"


def _told(found: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(map(_shown, found)) or "nothing"


def short_names(files: Sequence[str]) -> list[str]:
    """Return the files' names without their folders, but with them where two have one name."""
    names = [Path(file).name for file in files]
    return names if len(set(names)) == len(names) else list(files)


def row(file: str, answer: Answer, task: str) -> dict[str, Any]:
    """Return what results.json tells of a photograph; masks as COCO's run-length encodings."""
    found = answer.found
    if answer.masks is not None:
        codes = encoded(answer.masks)
        found = [
            each | {"mask": code | {"counts": code["counts"].decode()}}
            for each, code in zip(found, codes, strict=True)
        ]
    return {"file": file, KINDS[task]: found}


def lines(images: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """Return a line for each photograph, see `row`: the likeliest of its classes or objects."""
    names = short_names([image["file"] for image in images])
    width = max(map(len, names), default=0)
    return [
        f"{name:<{width}}  {_told(image[KINDS[task]])}"
        for name, image in zip(names, images, strict=True)
    ]


def write_csv(path: Path, images: Sequence[Mapping[str, Any]], task: str) -> None:
    """Write a row for each photograph and class or object, with its box where the task has them."""
    measure, boxed = MEASURES[task], task in ("localization", "detection")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        corners = ["x1", "y1", "x2", "y2"] if boxed else []
        writer.writerow(["file", "rank", "name", "index", measure, *corners])
        for image in images:
            for rank, each in enumerate(image[KINDS[task]], 1):
                values = (each["name"], each["index"], f"{each[measure]:.6f}")
                writer.writerow([image["file"], rank, *values, *each.get("box", [])])


def picture(name: str, photograph: Image.Image, answer: Answer, class_names: Sequence[str]) -> Html:
    """Return a figure of the photograph of this name with what was found in it.

    What a classifier saw, as it is; else the whole, with boxes, masks or regions over it.
    """
    first = _shown(answer.found[0]) if answer.found else "nothing"
    caption = f"{name}: {first}"
    if answer.seen is not None:
        png = io.BytesIO()
        answer.seen.convert("RGB").save(png, "png")
        return html.figure(png.getvalue(), caption)
    size = geometry.fitted(photograph.size, _SIDE).size
    pixels = np.asarray(photograph.convert("RGB").resize(size, Image.Resampling.BILINEAR))

    def shrunk(mask: np.ndarray) -> np.ndarray:
        image = Image.fromarray(mask.astype(np.int32))
        return np.asarray(image.resize(size, Image.Resampling.NEAREST))

    legend = 0 if answer.regions is None else 0.25 * -(-len(answer.found) // _LEGEND_COLUMNS)
    figure = Figure(figsize=(size[0] / 96, size[1] / 96 + legend), layout="constrained")
    axes = figure.subplots()
    if answer.regions is not None:
        axes.set_axis_off()
        colours = mask_figures.class_colours(len(class_names))
        axes.imshow(mask_figures.overlay(pixels, shrunk(answer.regions), len(class_names)))
        indices = [each["index"] for each in answer.found]
        handles = mask_figures.patches(colours[indices], [class_names[i] for i in indices])
        figure.legend(
            handles=handles, loc="outside lower center", ncols=_LEGEND_COLUMNS, frameon=False
        )
    else:
        found = answer.found if answer.masks is not None else _boxed(answer.found)
        ratio = np.tile(np.array(size) / photograph.size, 2)
        boxes = np.array([each["box"] for each in found]).reshape(-1, 4) * ratio
        masks = None
        if answer.masks is not None:
            masks = np.array([shrunk(mask) > 0 for mask in answer.masks]).reshape(-1, *size[::-1])
        colours = [COLOURS[(each["index"] - 1) % len(COLOURS)] for each in found]
        draw_objects(pixels, boxes, list(map(_shown, found)), colours, axes, masks)
    return html.figure(html.figure_png(figure), caption)


def _boxed(found: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Of a class's box that of the likeliest class alone; all objects."""
    return found[:1] if found and "probability" in found[0] else found


def section(
    images: Sequence[Mapping[str, Any]],
    task: str,
    pictures: Sequence[Html],
    broken: Mapping[str, str],
) -> Html:
    """Return the section with the table, and the pictures of the first photographs."""
    kind = KINDS[task]
    names = short_names([image["file"] for image in images])
    count = max((len(image[kind]) for image in images), default=0)
    if kind == "classes" and count <= 10:
        header = ["photograph", *map(str, range(1, count + 1))]
        rows = [
            (name, *map(_shown, image[kind])) for name, image in zip(names, images, strict=True)
        ]
        rows = [row + (None,) * (len(header) - len(row)) for row in rows]
    else:
        header = ["photograph", "found"]
        rows = [(name, _told(image[kind])) for name, image in zip(names, images, strict=True)]
    parts = [html.table(header, rows)]
    if broken:
        parts.append(html.table(["left out", "as"], list(broken.items())))
    return html.section(kind.capitalize(), *parts, html.figures(*pictures))
