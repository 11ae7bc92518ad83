"""Writes docs/results/export.md: how far each network's exported files are from JAX.

python -P docs/export_table.py [NAME ...]     the named networks, or all; rows that are there stay

Weights are drawn; images are of 64 pixels where the network takes them, else of its own size. All
networks take hours on two cores; the table grows row by row.
"""

import re
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.export import files
from cnn_jax.models import create_model, model_names
from cnn_jax.models.registry import MODELS
from cnn_jax.trained import Trained

TABLE = Path(__file__).parent / "results" / "export.md"
TITLE = """# How far the exported files are from JAX

The largest difference of any output, as a share of the largest output (or of 1): drawn weights,
random images, batches of two and of one, on a CPU. Networks that are not listed were not run yet:
`python -P docs/export_table.py` adds them.

| network | pixels | ONNX | StableHLO |
| --- | --- | --- | --- |
"""


def row(name: str) -> str:
    """Return the network's row."""
    model, entry = create_model(name), MODELS[name]
    for size in (min(64, model.image_size), model.image_size):
        images = jax.ShapeDtypeStruct((1, size, size, model.channels), jnp.float32)
        try:
            variables = jax.jit(lambda key, images=images: model.init(key, images))(
                jax.random.key(0)
            )
            break
        except (UsageError, ValueError):  # too small for this network
            if size == model.image_size:
                raise
    mean, std = entry.mean[: model.channels], entry.std[: model.channels]
    network = Trained(model, variables, Preprocessing(size), mean, std, (), {}, None)
    pixels = np.random.default_rng(0).random((2, *images.shape[1:]), np.float32)
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for each in ("onnx", "stablehlo"):
            try:
                told = files.export(network, pixels, Path(folder), [each])[each]
                cells.append(f"{told['difference_from_jax']:.0e}")
            except UsageError as error:
                cells.append(str(error).replace("|", "/"))
    return f"| {name} | {size} | {cells[0]} | {cells[1]} |"


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
