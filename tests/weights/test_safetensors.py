"""Reading safetensors files."""

import json

import ml_dtypes
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.weights import files, safetensors


def write(path, header, data=b"\0" * 8, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("F64", "float64"),
        ("F32", "float32"),
        ("F16", "float16"),
        ("BF16", ml_dtypes.bfloat16),
        ("I64", "int64"),
        ("U8", "uint8"),
        ("BOOL", "bool"),
    ],
)
def test_dtypes(name, dtype, tmp_path):
    values = np.array([[0, 1]], dtype)
    header = {"w": entry(name, (1, 2), (0, values.nbytes)), "__metadata__": {"format": "pt"}}
    tensors = safetensors.read(write(tmp_path / "w.safetensors", header, values.tobytes()))
    assert tensors["w"].dtype == values.dtype
    np.testing.assert_array_equal(tensors["w"], values)


@pytest.mark.parametrize(
    "header",
    [
        {"w": entry(offsets=(0, 4))},  # fewer bytes than the shape says
        {"w": entry(offsets=(0, 16), shape=(4,))},  # beyond the end
        {"w": entry(offsets=(8, 0))},  # backwards
        {"w": entry(offsets=(4, 12))},  # a hole before it
        {"w": entry(), "v": entry()},  # overlapping
        {"w": entry(shape=(1,), offsets=(0, 4))},  # bytes left over
        {"w": entry(shape=(2**40, 2**40))},
        {"w": entry(shape=(-2,))},
        {"w": entry("F33")},
        {"w": {"dtype": "F32"}},
        b'{"w": ',
        b"{" + b"[" * 100_000,
    ],
)
def test_invalid_headers_are_errors_of_use(header, tmp_path):
    path = write(tmp_path / "w.safetensors", header)
    with pytest.raises(UsageError, match=r"w\.safetensors is no valid safetensors file"):
        files.read_tensors(path)


def test_dtypes_beyond_numpy_are_named(tmp_path):
    path = write(tmp_path / "w.safetensors", {"w": entry("F8_E4M3", (8,))})
    with pytest.raises(UsageError, match="w is F8_E4M3; convert it"):
        files.read_tensors(path)


def test_a_truncated_file_is_an_error_wherever_it_ends(tmp_path):
    path = write(tmp_path / "w.safetensors", {"w": entry()})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"w\.safetensors"):
            files.read_tensors(path)


@pytest.mark.parametrize("length", [10**8, 10**8 + 1, 2**63, 2**64 - 1])
def test_an_enormous_header_is_refused_unread(length, tmp_path):
    path = write(tmp_path / "w.safetensors", {"w": entry()}, length=length)
    with pytest.raises(UsageError, match=r"w\.safetensors"):
        files.read_tensors(path)
