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
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from flax.errors import ScopeParamShapeError
from jaxtyping import Float

from cnn_jax import weights
from cnn_jax.data import decoding
from cnn_jax.errors import UsageError, unknown
from cnn_jax.export import onnx, program
from cnn_jax.export.program import Program
from cnn_jax.models.registry import find
from cnn_jax.trained import Trained
from cnn_jax.training.config import literal_options
from cnn_jax.weights import convert

# What may differ, as a share of an output's own largest value, however small that is.
TOLERANCE = 1e-5

# What runs a program without this project: its file, the folder of inputs, that of outputs.
RUN_ALONE = """
import pathlib, sys
import jax, jax.export, numpy
program, inputs, outputs = map(pathlib.Path, sys.argv[1:])
exported = jax.export.deserialize(bytearray(program.read_bytes()))
for file in inputs.iterdir():
    found = exported.call(*numpy.load(file).values())
    numpy.savez(outputs / file.name, **found)
assert not {"cnn_jax", "flax"} & set(sys.modules)
"""

Arrays = Mapping[str, np.ndarray]


class Compared(NamedTuple):
    """A program, the arrays that it is compared on, by name and in its order, and JAX's outputs."""

    program: Program
    arrays: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


def run_stablehlo(path: Path, inputs: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
    """Return the program's outputs for each of the inputs, run in a process that has JAX alone.

    Args:
      inputs: arrays by name, in the program's order.
    """
    with tempfile.TemporaryDirectory() as given, tempfile.TemporaryDirectory() as outputs:
        files = [f"{i}.npz" for i in range(len(inputs))]
        for file, arrays in zip(files, inputs, strict=True):
            np.savez(Path(given) / file, **arrays)
        command = [sys.executable, "-I", "-c", RUN_ALONE, os.path.abspath(path), given, outputs]
        ended = subprocess.run(command, cwd=outputs, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"the exported program does not run: {ended.stderr[-2000:]}")
        found = []
        for file in files:
            with np.load(Path(outputs) / file) as arrays:
                found.append(dict(arrays))
        return found


def run_onnx(path: Path, inputs: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
    """Return the model's outputs for each of the inputs, by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(each)), strict=True)) for each in inputs]


def difference(found: Arrays, expected: Arrays) -> float:
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
        "mode": decoding.MODES[network.model.channels],
        "resize_shorter_side": network.preprocessing.resize or network.preprocessing.image_size,
        "interpolation": network.preprocessing.interpolation,
        "antialias": True,
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
    watch: Callable[[Path, dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Write the network in each format into the folder, once it agrees with JAX on the pixels.

    NAME.FORMAT is the network, NAME.HEAD.FORMAT a detector's head on regions, see
    program.region_heads; a format of weights has no heads of its own. All pixels and the first
    alone are run, the heads on regions of the first. Files there of the same names are replaced;
    a JSON file beside each, .json after its name, says what it takes, gives and is.

    Args:
      watch: called with each file that is kept and what its JSON file says.

    Returns:
      what follows "NAME." in a file's name, as "onnx" -> what its JSON file says.

    Raises:
      UsageError: an unknown format, a library that is missing, pixels of a size that the network
        does not take, a network that has no such form, one whose outputs are zero or not finite,
        with which nothing can agree, or one whose exported form differs from JAX by more than
        TOLERANCE; nothing is kept of it.
    """
    check_formats(formats)
    programs = [each for each in formats if each != "safetensors"]
    parts = compared(network, np.asarray(pixels, np.float32)) if programs else {}
    files: dict[str, tuple[str, Compared | None]] = {}
    for each in formats:
        if each in programs:
            files |= {".".join(filter(None, (p, each))): (each, parts[p]) for p in parts}
        else:
            files[each] = each, None
    told = {}
    for ending, (kind, part) in files.items():
        path = folder / f"{network.model.name.replace(':', '_')}.{ending}"
        try:
            with tempfile.TemporaryDirectory(prefix=".export", dir=folder) as unchecked:
                written = Path(unchecked) / path.name
                apart = _write_and_compare(network, kind, part, written)
                if not apart <= TOLERANCE:
                    raise UsageError(
                        f"{path.name} would differ from JAX by {apart:.1e} of its largest output, "
                        f"more than {TOLERANCE}; it is not kept"
                    )
                told[ending] = _description(network, kind, part, written, apart)
                text = json.dumps(told[ending], indent=2, ensure_ascii=False)
                written.with_name(f"{path.name}.json").write_text(text + "\n")
                for each in Path(unchecked).iterdir():
                    each.replace(folder / each.name)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
        if watch is not None:
            watch(path, told[ending])
    return told


def _write_and_compare(network: Trained, kind: str, part: Compared | None, path: Path) -> float:
    """Write the file, run it, and return how far it is from JAX."""
    if part is None:
        _write_safetensors(network, path)
        _check_tensors(network, path)
        return 0.0
    if kind == "onnx":
        onnx.write(part.program, path, network.model.name, _metadata(network))
    else:
        path.write_bytes(program.serialized(part.program))
    run = run_onnx if kind == "onnx" else run_stablehlo
    # fixed inputs have a first size of one
    alone = {name: array[:1] for name, array in part.arrays.items()}
    expected = part.expected, {name: array[:1] for name, array in part.expected.items()}
    found = run(path, [part.arrays, alone])
    return max(difference(*pair) for pair in zip(found, expected, strict=True))


def compared(network: Trained, pixels: Float[np.ndarray, "n h w c"]) -> dict[str, Compared]:
    """Return what is exported of the network: "" is itself, others are heads on regions by name.

    Raises:
      UsageError: pixels of a size that it does not take; an output that is zero or not finite, so
        that nothing can be compared with it.
    """
    try:
        parts = {"": _by_jax(network, program.outputs, {"pixels": pixels})}
    except ScopeParamShapeError:
        shape, own = "x".join(map(str, pixels.shape[1:])), program.image_size(network)
        raise UsageError(
            f"{network.model.name} takes no images of {shape}; give {own}x{own}"
        ) from None
    maps = {name: parts[""].expected[name][:1] for name in program.head_maps(network)}
    for head in program.region_heads(network):
        boxes = program.sample_boxes(network, *pixels.shape[1:3])
        parts[head] = _by_jax(
            network,
            lambda each, head=head: program.region_heads(each)[head],
            maps | {"boxes": boxes},
        )
    return parts


def _by_jax(
    network: Trained, function: Callable[[Trained], Callable], arrays: dict[str, np.ndarray]
) -> Compared:
    """Return the program function(network), run on the arrays."""

    @jax.jit
    def run(variables, *arrays):  # weights as arguments: as constants they take long to compile
        return function(network._replace(variables=variables))(*arrays)

    found = run(network.variables, *arrays.values())
    expected = {name: np.asarray(array) for name, array in found.items()}
    for name, array in expected.items():
        if fault := _incomparable(array):
            raise UsageError(
                f"{name} of {network.model.name} is {fault} for these images, and no file can be "
                "compared with that; it is not exported"
            )
    shapes = {
        name: (program.FREE[name], *array.shape[1:]) if name in program.FREE else array.shape
        for name, array in arrays.items()
    }
    return Compared(Program(function(network), shapes), arrays, expected)


MEANING = {
    "pixels": "in 0..1",
    "boxes": "x1, y1, x2, y2, in the image's pixels",
    "map": "of the network's own program, one image",
}


def _description(
    network: Trained, kind: str, part: Compared | None, path: Path, apart: float
) -> dict[str, Any]:
    packages = {
        "onnx": ("jax", "onnx", "onnxruntime"),
        "stablehlo": ("jax", "flatbuffers"),
        "safetensors": ("safetensors",),
    }[kind]
    beside = onnx.data_file(path)
    runs: dict[str, Any] = {}
    if part is not None:
        inputs = part.program.inputs
        free = next(shape[0] for shape in inputs.values() if isinstance(shape[0], str))
        runs["inputs"] = {
            name: {
                "shape": list(shape),
                "dtype": "float32",
                "what": MEANING[name.rstrip("0123456789")],
            }
            for name, shape in inputs.items()
        }
        runs["outputs"] = {
            name: {"shape": [free, *array.shape[1:]], "dtype": str(array.dtype)}
            for name, array in part.expected.items()
        }
        runs["examples_compared"] = len(next(iter(part.expected.values())))
    if kind == "stablehlo":
        runs["platforms"] = list(program.PLATFORMS)
    if kind == "onnx":
        runs["opset"] = onnx.OPSET
    return {
        "model": network.model.name,
        "task": network.model.task,
        "format": kind,
        **runs,
        "preprocessing": preprocessing(network),
        "class_names": list(network.class_names),
        **({"detector": rules} if (rules := program.rules(network)) else {}),
        **_size_and_hash(path),
        **({"data": _size_and_hash(beside)} if beside.exists() else {}),
        "source": dict(network.source),
        "difference_from_jax": apart,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _size_and_hash(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}
