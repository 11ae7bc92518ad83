"""Reading .pth files: what PyTorch wrote comes back, and nothing that others wrote runs."""

import argparse
import hashlib
import io
import os
import pickle as python_pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.weights import files, pickle

WRITTEN_BY_TORCH = Path(__file__).parents[1] / "references" / "pth"
DTYPES = ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


# --- What tests/references/make_pth.py wrote


@pytest.mark.parametrize("name", ["zip", "stream", "checkpoint"])
def test_both_formats_of_pytorch_and_a_nested_state_dict(name):
    tensors = pickle.read(WRITTEN_BY_TORCH / f"{name}.pth").tensors
    grid = np.arange(24, dtype="float32")
    expected = {
        "plain": np.arange(6, dtype="float32").reshape(2, 3),
        "transposed": grid.reshape(4, 6).T,
        "shared": grid[10:14],
        "every_second": grid[::2],
        "scalar": np.array(7),
        "empty": np.empty((0, 3), "float32"),
        "parameter": np.arange(3, dtype="float32"),
        "channels_last": grid.reshape(1, 2, 3, 4),
    }
    for dtype in [
        "float64",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    ]:
        expected[dtype] = np.arange(2).astype(np.dtype(dtype))
    assert list(tensors) == list(expected)
    for key, array in expected.items():
        assert tensors[key].dtype == array.dtype
        np.testing.assert_array_equal(tensors[key], array)


def test_a_whole_module_is_refused_by_name():
    with pytest.raises(UsageError, match=r"it asks for torch\.nn\.modules\.linear\.Linear"):
        pickle.read(WRITTEN_BY_TORCH / "module.pth")


@pytest.mark.parametrize("name", ["zip", "stream"])
def test_a_truncated_file_is_an_error_wherever_it_ends(name, tmp_path):
    content = (WRITTEN_BY_TORCH / f"{name}.pth").read_bytes()
    path = tmp_path / "short.pth"
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"short\.pth"):
            files.read_tensors(path)
    path.write_bytes(content + b"more")
    if name == "stream":
        with pytest.raises(UsageError, match="goes on after its last storage"):
            files.read_tensors(path)


@pytest.mark.parametrize("name", ["zip", "stream"])
def test_a_damaged_file_is_an_error_of_use_or_reads_as_arrays(name, tmp_path):
    content = (WRITTEN_BY_TORCH / f"{name}.pth").read_bytes()
    path, refused = tmp_path / "damaged.pth", 0
    generator = np.random.default_rng(0)
    for position in generator.integers(16, len(content), 300):
        damaged = bytearray(content)
        damaged[position] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            assert all(
                isinstance(array, np.ndarray) for array in pickle.read(path).tensors.values()
            )
        except UsageError:
            refused += 1
    assert refused > 100


def test_the_digest_in_a_name_is_checked(tmp_path):
    content = (WRITTEN_BY_TORCH / "zip.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    good, bad = tmp_path / f"net-{digest[:8]}.pth", tmp_path / "net-0badc0de.pth"
    for path in (good, bad):
        path.write_bytes(content)
    assert "plain" in files.read_tensors(good)
    with pytest.raises(UsageError, match=f"sha256 begins with {digest[:8]}"):
        files.read_tensors(bad)


def test_a_date_in_a_name_is_no_digest(tmp_path, capsys):
    content = (WRITTEN_BY_TORCH / "zip.pth").read_bytes()
    for date in ("20240131", "31012024", "01312024"):
        path = tmp_path / f"resnet18-{date}.pth"
        path.write_bytes(content)
        assert "plain" in files.read_tensors(path)
        note = f"{date} is taken for a date; the file's content is not checked"
        assert note in capsys.readouterr().err
    for number in ("20241331", "00012000", "20240230"):  # no days
        path = tmp_path / f"resnet18-{number}.pth"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is damaged"):
            files.read_tensors(path)


# --- What others may write


def write_zip(path: Path, data: bytes, storages=None, compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, numbers in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", numbers)
    return path


def write_stream(path: Path, data: bytes, place: int = 3) -> Path:
    """Write the stream format with `data` as its object, or in place of another of its pickles."""
    parts = [python_pickle.dumps(value, 2) for value in (0, 1001, {"little_endian": True}, {}, [])]
    parts[0] = pickle.STREAM_MAGIC
    parts[place] = data
    path.write_bytes(b"".join(parts))
    return path


class Command:
    """Pickles as a call of os.system that leaves a trace."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def hostile(trace: Path) -> dict[str, bytes]:
    command = f"touch {trace}".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    return {
        "reduce": python_pickle.dumps({"w": Command(trace)}, 2),
        "protocol 0": python_pickle.dumps({"w": Command(trace)}, 0),
        "protocol 4": python_pickle.dumps({"w": Command(trace)}, 4),
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x0f_sys.modules.os\x93.",
        "inst": b"(S'touch " + str(trace).encode() + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text + b"o.",
        "newobj_ex": b"\x80\x04cos\nsystem\n" + text + b"\x85}\x92.",
        "build": b"\x80\x02ccollections\nOrderedDict\n}X\x05\x00\x00\x00itemsK\x01sb.",
        "state of a function": b"\x80\x02ctorch._utils\n_rebuild_parameter\n"
        b"N}X\x0c\x00\x00\x00__defaults__)s\x86b.",
        "eval": b"cbuiltins\neval\n(X\x02\x00\x00\x001+\x85R.",
        "getattr": b"cbuiltins\ngetattr\n.",
        "torch loader": b"ctorch\nload\n" + text + b"\x85R.",
        "codecs": b"c_codecs\nencode\n.",
        "extension": b"\x80\x02\x82\x01.",
        "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
        "buffer": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x3f.",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x3f.",
        "recursive": b"\x80\x02]q\x00h\x00a.",
        "deep": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        "no dict": python_pickle.dumps([1, 2], 2),
        "no tensor": python_pickle.dumps({"w": "text"}, 2),
        "no name": python_pickle.dumps({("deep",): 1}, 2),
        "lines": python_pickle.dumps({"a\nb": 1}, 2),
        "empty": b"",
    }


def test_a_pickle_of_very_many_containers_is_refused_before_any_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "LARGEST_PICKLE", 1000)
    data = b"\x80\x02" + b"]0" * 500 + python_pickle.dumps({"w": 1}, 2)[2:]
    for writer in (write_zip, write_stream):
        with pytest.raises(UsageError, match="longer than 1000 bytes"):
            files.read_tensors(writer(tmp_path / "weights.pth", data))


def test_the_command_would_run_elsewhere(tmp_path):
    python_pickle.loads(hostile(tmp_path / "trace")["reduce"])
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", hostile(Path("trace")))
@pytest.mark.parametrize("writer", [write_zip, write_stream])
def test_hostile_pickles_are_refused_and_nothing_runs(kind, writer, tmp_path):
    path = writer(tmp_path / "weights.pth", hostile(tmp_path / "trace")[kind])
    with pytest.raises(UsageError, match=re.escape(str(path))) as error:
        files.read_tensors(path)
    assert not (tmp_path / "trace").exists()
    assert "\n" not in str(error.value)


def test_what_lies_beside_the_weights_runs_no_more_than_the_weights(tmp_path):
    """A training script's arguments may be there; what they were made of is not looked at."""
    good = {"model": {"w": 1}, "args": argparse.Namespace(command=Command(tmp_path / "trace"))}
    data = python_pickle.dumps(good, 2)
    with pytest.raises(UsageError, match=r"it asks for \w+\.system"):
        files.read_tensors(write_zip(tmp_path / "weights.pth", data))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cargparse\nNamespace\n}X\x0b\x00\x00\x00__setitem__ccollections\nOrderedDict\nsb.",
        b"cargparse\nNamespace\n)\x81N}X\x09\x00\x00\x00__class__K\x01s\x86b.",
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8I0\nI1\ntR(K\x03tb.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nset\nNtR.",
    ],
)
def test_stand_ins_keep_nothing(data, tmp_path):
    with pytest.raises(UsageError):
        files.read_tensors(write_zip(tmp_path / "weights.pth", b"\x80\x02" + data))
    names = pickle._names()
    beside = names["argparse", "Namespace"]
    made = beside(1, 2)
    made["key"] = 3
    made.append(4)
    assert vars(made) == {}


@pytest.mark.parametrize("place", range(1, 5))
def test_every_pickle_of_the_stream_format_is_guarded(place, tmp_path):
    data = hostile(tmp_path / "trace")["reduce"]
    with pytest.raises(UsageError, match=r"it asks for \w+\.system"):
        files.read_tensors(write_stream(tmp_path / "weights.pth", data, place))
    assert not (tmp_path / "trace").exists()


def state_dict(*, key="0", storage="FloatStorage", count=6, offset=0, size=(2, 3), stride=(3, 1)):
    """Return the pickle of {"w": a tensor described so}, as PyTorch would write it."""

    class Global:
        def __init__(self, module, name):
            self.module, self.name = module, name

    class Pickler(python_pickle._Pickler):
        def persistent_id(self, value):
            return value.description if isinstance(value, Storage) else None

        def save(self, value, save_persistent_id=True):
            if isinstance(value, Global):
                self.write(f"c{value.module}\n{value.name}\n".encode())
            elif isinstance(value, Call):
                self.save(value.function)
                self.save(value.arguments)
                self.write(python_pickle.REDUCE)
            else:
                super().save(value, save_persistent_id)

    class Storage:
        description = ("storage", Global("torch", storage), key, "cpu", count)

    class Call:
        def __init__(self, function, *arguments):
            self.function, self.arguments = function, arguments

    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    tensor = Call(rebuild, Storage(), offset, size, stride, False, None)
    file = io.BytesIO()
    Pickler(file, 2).dump({"w": tensor})
    pickletools.dis(file.getvalue(), io.StringIO())  # it is a valid pickle
    return file.getvalue()


NUMBERS = np.arange(6, dtype="<f4").tobytes()


def test_strides_and_offsets_are_followed(tmp_path):
    data = state_dict(offset=1, size=(2, 2), stride=(1, 3))
    tensors = pickle.read(write_zip(tmp_path / "w.pth", data, {"0": NUMBERS})).tensors
    np.testing.assert_array_equal(tensors["w"], [[1, 4], [2, 5]])
    data = state_dict(storage="BFloat16Storage", count=12, size=(12,), stride=(1,))
    tensors = pickle.read(write_zip(tmp_path / "w.pth", data, {"0": NUMBERS})).tensors
    assert tensors["w"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"offset": 1}, "w reaches beyond its storage"),
        ({"offset": -1}, "w is not described"),
        ({"size": (3, 3)}, "w reaches beyond its storage"),
        ({"size": (-2, 3)}, "w is not described"),
        ({"size": (2,)}, "w is not described"),
        ({"size": [2, 3]}, "w is not described"),
        ({"size": (2.0, 3)}, "w is not described"),
        ({"stride": (4, 1)}, "w reaches beyond its storage"),
        ({"stride": (-3, 1)}, "w is not described"),
        ({"size": (2**40,), "stride": (0,)}, "w reaches beyond its storage"),
        ({"size": (1,) * 40, "stride": (1,) * 40}, "w is not described"),
        ({"count": 5}, "storage 0 has not the 5 numbers it claims"),
        ({"count": 7}, "storage 0 has not the 7 numbers it claims"),
        ({"count": 2**50}, "claim more numbers than the file holds"),
        ({"count": -6}, "a storage is not described"),
        ({"key": "1"}, "storage 1 is missing"),
        ({"key": "../../etc/passwd"}, "is missing"),
        ({"storage": "QInt8Storage"}, "it asks for torch.QInt8Storage"),
    ],
)
def test_tensors_that_leave_their_storage_are_refused(description, message, tmp_path):
    path = write_zip(tmp_path / "w.pth", state_dict(**description), {"0": NUMBERS})
    with pytest.raises(UsageError, match=message):
        pickle.read(path)


def test_a_compressed_archive_is_refused(tmp_path):
    """It could hold a thousand times what it weighs."""
    path = tmp_path / "w.pth"
    write_zip(path, state_dict(), {"0": NUMBERS}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match="compressed"):
        pickle.read(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UsageError, match=r"no data\.pkl"):
        pickle.read(tmp_path / "w.pth")
