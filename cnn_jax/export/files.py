"""Exported files: written once they agree with JAX on real images, with a description beside."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Float

from cnn_jax import weights
from cnn_jax.errors import UsageError, unknown
from cnn_jax.export import onnx, program
from cnn_jax.models.registry import find
from cnn_jax.trained import Trained
from cnn_jax.training.config import literal_options
from cnn_jax.weights import convert

# What may differ, as a share of an output's own largest value, however small that is.
TOLERANCE = 1e-5

# What runs a program without this project: its file, the pixels', the outputs'.
RUN_ALONE = """
import sys
import jax, jax.export, numpy
program, pixels, outputs = sys.argv[1:]
with open(program, "rb") as file:
    exported = jax.export.deserialize(bytearray(file.read()))
for number, batch in numpy.load(pixels).items():
    found = exported.call(batch)
    numpy.savez(f"{outputs}/{number}.npz", **found)
assert not {"cnn_jax", "flax"} & set(sys.modules)
"""

Outputs = Mapping[str, np.ndarray]


def run_stablehlo(
    path: Path, batches: Sequence[Float[np.ndarray, "_n h w c"]]
) -> list[dict[str, np.ndarray]]:
    """Return the program's outputs for each batch, run in a process that has JAX alone."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pixels.npz"
        np.savez(pixels, **{str(i): batch for i, batch in enumerate(batches)})
        command = [sys.executable, "-I", "-c", RUN_ALONE, os.path.abspath(path), pixels, folder]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"the exported program does not run: {ended.stderr[-2000:]}")
        found = []
        for i in range(len(batches)):
            with np.load(Path(folder) / f"{i}.npz") as arrays:
                found.append(dict(arrays))
        return found


def run_onnx(
    path: Path, batches: Sequence[Float[np.ndarray, "_n h w c"]]
) -> list[dict[str, np.ndarray]]:
    """Return the model's outputs for each batch, by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [
        dict(zip(names, session.run(names, {"pixels": batch}), strict=True)) for batch in batches
    ]


def difference(found: Outputs, expected: Outputs) -> float:
    """Return the largest difference of any output, as a share of its largest expected value.

    Each output counts by itself. It is inf where nothing can be compared: other names or shapes,
    an expected output that is zero everywhere, values that are not finite.
    """
    if found.keys() != expected.keys():
        return float("inf")
    each = [0.0]
    for name, wanted in expected.items():
        if found[name].shape != wanted.shape or _incomparable(wanted):
            return float("inf")
        apart = np.abs(np.asarray(found[name], np.float64) - wanted).max()
        each.append(float(apart / np.abs(wanted).max()))
    return max(each) if np.isfinite(each).all() else float("inf")


def _incomparable(wanted: np.ndarray) -> str | None:
    """Return why nothing agrees with this output, if so."""
    if not np.isfinite(wanted).all():
        return "not finite"
    return None if wanted.any() else "zero everywhere"


def _metadata(network: Trained) -> dict[str, str]:
    told = {"model": network.model.name, "class_names": list(network.class_names)}
    told["preprocessing"] = preprocessing(network)
    return {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}


def _write_safetensors(network: Trained, path: Path) -> None:
    """Write the weights under their published names; the metadata are JSON."""
    options = literal_options(network.config.model_options) if network.config is not None else {}
    weights.save_weights(
        network.model.name,
        network.variables,
        path,
        metadata=_metadata(network),
        num_classes=network.model.num_classes,
        **options,
    )


def _check_tensors(network: Trained, path: Path) -> None:
    """Raise UsageError unless the file's tensors are the network's variables, bit for bit."""
    published = convert.to_published(find(network.model.name), network.variables)
    expected = {name: np.asarray(array) for name, array in published.items()}
    found = safetensors.numpy.load_file(path)
    if {name: _content(array) for name, array in found.items()} != {
        name: _content(array) for name, array in expected.items()
    }:
        raise UsageError("the tensors of the file are not the network's; it is not kept")


def _content(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, array.tobytes()


def preprocessing(network: Trained) -> dict[str, Any]:
    """Return what an image goes through before the program, and what is inside of it."""
    return {
        "resize_shorter_side": network.preprocessing.resize or network.preprocessing.image_size,
        "interpolation": f"{network.preprocessing.interpolation}, antialiased",
        "centre_crop": network.preprocessing.image_size,
        "divide_by": 255,
        "then": "(pixels - mean) / std, inside the onnx and stablehlo programs",
        "mean": list(network.mean),
        "std": list(network.std),
    }


FORMATS = ("onnx", "stablehlo", "safetensors")


def check_formats(formats: Sequence[str]) -> None:
    """Raise UsageError for a format that is unknown, or whose libraries are not installed."""
    for each in formats:
        if each not in FORMATS:
            raise unknown("format", each, FORMATS)
    needed = {"onnx": ("onnx", "onnxruntime"), "stablehlo": ("flatbuffers",)}
    for each in formats:
        for module in needed.get(each, ()):
            if importlib.util.find_spec(module) is None:
                raise UsageError(
                    f"--format={each} needs {module}; install it: pip install {module}"
                )


def export(
    network: Trained,
    pixels: Float[np.ndarray, "n h w c"],
    folder: Path,
    formats: Sequence[str] = FORMATS,
) -> dict[str, Any]:
    """Write the network in each format into the folder, once it agrees with JAX on the pixels.

    A batch of all pixels and one of the first alone are run. Files there of the same names are
    replaced; NAME.FORMAT.json beside each says what it takes, gives and is.

    Returns:
      format -> what its JSON file says.

    Raises:
      UsageError: an unknown format, a library that is missing, a network that has no such form,
        one whose outputs are zero or not finite, with which nothing can agree, or one whose
        exported form differs from JAX by more than TOLERANCE; nothing is kept of it.
    """
    check_formats(formats)
    function = program.outputs(network)
    pixels = np.asarray(pixels, np.float32)
    batches, expected = [pixels, pixels[:1]], []
    if set(formats) - {"safetensors"}:
        of_all = _expected(network, pixels)
        expected = [of_all, {name: array[:1] for name, array in of_all.items()}]
    shape = tuple(pixels.shape[1:])

    def by_running(make: Callable[..., bytes], run: Callable, path: Path) -> float:
        path.write_bytes(make(function, shape))
        found = run(path, batches)
        return max(difference(*pair) for pair in zip(found, expected, strict=True))

    def tensors(path: Path) -> float:
        _write_safetensors(network, path)
        _check_tensors(network, path)
        return 0.0

    ways = {
        "onnx": partial(by_running, partial(onnx.converted, title=network.model.name), run_onnx),
        "stablehlo": partial(by_running, program.serialized, run_stablehlo),
        "safetensors": tensors,
    }
    told = {}
    for each in formats:
        path = folder / f"{network.model.name.replace(':', '_')}.{each}"
        unchecked = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            apart = ways[each](unchecked)
            if not apart <= TOLERANCE:
                raise UsageError(
                    f"{path.name} would differ from JAX by {apart:.1e} of its largest output, more "
                    f"than {TOLERANCE}; it is not kept"
                )
            told[each] = _description(network, each, unchecked, apart, shape, expected)
            unchecked.replace(path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
        finally:
            unchecked.unlink(missing_ok=True)
        text = json.dumps(told[each], indent=2, ensure_ascii=False)
        path.with_name(f"{path.name}.json").write_text(text + "\n")
    return told


def _expected(network: Trained, pixels: Float[np.ndarray, "n h w c"]) -> dict[str, np.ndarray]:
    """Return JAX's outputs.

    Raises:
      UsageError: one of them is zero or not finite, so that nothing can be compared with it.
    """

    @jax.jit
    def run(variables, pixels):  # weights as arguments: as constants they take long to compile
        return program.outputs(network._replace(variables=variables))(pixels)

    outputs = {name: np.asarray(x) for name, x in run(network.variables, pixels).items()}
    for name, array in outputs.items():
        if fault := _incomparable(array):
            raise UsageError(
                f"{name} of {network.model.name} is {fault} for these images, and no file can be "
                "compared with that; it is not exported"
            )
    return outputs


def _description(
    network: Trained,
    kind: str,
    path: Path,
    apart: float,
    shape: tuple[int, ...],
    expected: Sequence[Mapping[str, Array]],
) -> dict[str, Any]:
    examples = len(next(iter(expected[0].values()))) if expected else 0
    packages = {
        "onnx": ("jax", "onnx", "onnxruntime"),
        "stablehlo": ("jax", "flatbuffers"),
        "safetensors": ("safetensors",),
    }[kind]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    runs = {
        "inputs": {"pixels": {"shape": ["batch", *shape], "dtype": "float32", "range": [0, 1]}},
        "outputs": {
            name: {"shape": ["batch", *array.shape[1:]], "dtype": str(array.dtype)}
            for name, array in (expected[0] if expected else {}).items()
        },
    }
    if kind == "stablehlo":
        runs["platforms"] = list(program.PLATFORMS)
    return {
        "model": network.model.name,
        "task": network.model.task,
        "format": kind,
        **({} if kind == "safetensors" else runs),
        "preprocessing": preprocessing(network),
        "class_names": list(network.class_names),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "source": dict(network.source),
        "difference_from_jax": apart,
        **({} if kind == "safetensors" else {"examples_compared": examples}),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
