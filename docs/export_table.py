"""Writes docs/results/export.md: how far each network's exported files are from JAX.

python -m docs.export_table [NAME ...]     the named networks, or all; rows that are there stay

Images are of 64 pixels where the network takes them, else of its own size. All networks take hours
on two cores; the table grows row by row.
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from cnn_jax.errors import UsageError
from cnn_jax.export import files, program
from cnn_jax.models import model_names
from cnn_jax.models.registry import MODELS
from tests.models import trained_like

TABLE = Path(__file__).parent / "results" / "export.md"
TITLE = """# How far the exported files are from JAX

The largest difference of any output, as a share of that output's own largest value: two
photographs in batches of two and of one, on a CPU. Weights are drawn so that photographs reach the
outputs (`tests/models/trained_like.py`); the last column tells how far apart the outputs of the two
photographs are, as the same share, for the output where they are closest. Of detectors the
backbone's maps and the raw heads of the first stage are compared, and in rows of their own the
heads on regions, on 9 or 18 boxes of one photograph and on the first alone; there the last column
is of the first two boxes. Of R-CNN it is the network of a region. A row is written by
`python -m docs.export_table NETWORK`.

"""
HEAD = """| network | pixels | ONNX | StableHLO | between photographs |
| --- | --- | --- | --- | --- |
"""
ROW = re.compile(r"^\| (?!network |---)(\S+) (\|.*)$", re.MULTILINE)


def rows_of(name: str) -> list[str]:
    """Return the network's row, and one for each of its heads on regions."""
    own = MODELS[name].image_size
    try:
        network = trained_like.network(name, min(64, own))
    except (UsageError, ValueError):  # too small for this network
        network = trained_like.network(name, own)
    size = program.image_size(network)
    known, rows = {"pixels": trained_like.photographs(size, network.model.channels)[:2]}, []
    if program.head_maps(network):
        known["boxes"] = program.sample_boxes(network, size, size)
    told, fault = {}, ""

    def keep(path: Path, each: dict) -> None:
        told[path.name.removeprefix(f"{name}.")] = each

    with tempfile.TemporaryDirectory() as folder:
        formats = ["onnx", "stablehlo"]
        try:
            files.export(network, known["pixels"], Path(folder), formats, watch=keep)
        except UsageError as error:
            fault = str(error).partition(";")[0].replace("|", "/")
            if not told:
                return [f"| {name} | {size} | {fault} | | |"]
        for ending in told:
            part = ending.removesuffix("onnx")
            if part == ending:
                continue
            path = Path(folder) / f"{name}.{ending}"
            (outputs,) = files.run_onnx(path, [{i: known[i] for i in told[ending]["inputs"]}])
            if not part:
                known |= {i: outputs[i][:1] for i in program.head_maps(network)}
            apart = min(np.abs(a - b).max() / np.abs([a, b]).max() for a, b, *_ in outputs.values())
            both = (told.get(f"{part}{each}") for each in formats)
            differences = (f"{each['difference_from_jax']:.1e}" if each else fault for each in both)
            stem = f"{name}.{part}".rstrip(".")
            rows.append(f"| {stem} | {size} | {' | '.join(differences)} | {apart:.2f} |")
    return rows


def page(rows: dict[str, str]) -> str:
    """Return the document of these rows, each by its name, and what they come to."""
    differences = [
        (float(number), name, form)
        for name, row in rows.items()
        for form, number in zip(("ONNX", "StableHLO"), row.split("|")[2:4], strict=True)
        if re.fullmatch(r" \d\S+ ", number)
    ]
    largest, name, form = max(differences)
    networks = {row.partition(".")[0] for row in rows}
    summary = (
        f"These are {len(networks)} of {len(model_names())} networks. The largest difference is "
        f"{largest:.1e}, of\n{name} as {form}; beyond {files.TOLERANCE:.0e} no file is kept.\n\n"
    )
    lines = "".join(f"| {name} {rows[name]}\n" for name in sorted(rows))
    return TITLE + summary + HEAD + lines


def main(names: list[str]) -> None:
    text = TABLE.read_text() if TABLE.exists() else ""
    rows = dict(ROW.findall(text))
    for name in names or model_names():
        if name not in rows or names:
            new = rows_of(name)
            rows |= dict(ROW.findall("\n".join(new)))
            TABLE.write_text(page(rows))
            print(*new, sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
