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
backbone's maps and the raw heads of the first stage are compared, of R-CNN the network of a region.
Networks that are not listed were not run yet: `python -m docs.export_table` adds them.

| network | pixels | ONNX | StableHLO | between photographs |
| --- | --- | --- | --- | --- |
"""


def row(name: str) -> str:
    """Return the network's row."""
    own = MODELS[name].image_size
    try:
        network = trained_like.network(name, min(64, own))
    except (UsageError, ValueError):  # too small for this network
        network = trained_like.network(name, own)
    size = program.image_size(network)
    pixels = trained_like.photographs(size, network.model.channels)[:2]
    with tempfile.TemporaryDirectory() as folder:
        try:
            told = files.export(network, pixels, Path(folder), ["onnx", "stablehlo"])
        except UsageError as error:
            return f"| {name} | {size} | {str(error).replace('|', '/')} | | |"
        (outputs,) = files.run_onnx(Path(folder) / f"{name}.onnx", [pixels])
    apart = min(np.abs(a - b).max() / np.abs([a, b]).max() for a, b in outputs.values())
    differences = (f"{each['difference_from_jax']:.1e}" for each in told.values())
    return f"| {name} | {size} | {' | '.join(differences)} | {apart:.2f} |"


def main(names: list[str]) -> None:
    text = TABLE.read_text() if TABLE.exists() else ""
    rows = dict(re.findall(r"^(\| (?!network|---)(?:\S+) )(\|.*)$", text, re.MULTILINE))
    for name in names or model_names():
        key = f"| {name} "
        if key not in rows or names:
            rows[key] = row(name)[len(key) :]
            lines = "\n".join(key + rows[key] for key in sorted(rows))
            TABLE.write_text(TITLE + lines + "\n")
            print(key + rows[key], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
