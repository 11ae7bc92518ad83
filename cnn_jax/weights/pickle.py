"""Reading the tensors of PyTorch's .pth files, without PyTorch and without running what they hold.

A .pth file is a pickle, and a pickle is a program. Here it can build containers, numbers, strings
and descriptions of tensors, and nothing else: its instructions are checked against a list before
any of them runs, and the only names that it can look up are those in `_names`, all of them ours.
"""

import collections
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from cnn_jax.errors import UsageError

# The first bytes of the format from before PyTorch 1.6: a pickled magic number.
STREAM_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ZIP_MAGIC = b"PK\x03\x04"

STORAGES = {
    "BFloat16Storage": ml_dtypes.bfloat16,
    "HalfStorage": np.float16,
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "CharStorage": np.int8,
    "ShortStorage": np.int16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

# What state dicts are pickled with. Left out are those that call what a file names in other ways
# (INST, OBJ, the EXT ones) and buffers.
_OPCODES = """
PROTO FRAME STOP MARK POP POP_MARK GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ BINPERSID
NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 BINFLOAT
UNICODE BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING
EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
OPCODES = frozenset(_OPCODES.split())

# A pickle names some thousand tensors in 200 bytes each; one byte can make a container of 64.
LARGEST_PICKLE = 16 * 2**20


class _Storage(NamedTuple):
    """A run of numbers that the pickle refers to: its name, their type, how many there are."""

    key: str
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Refused(Exception):
    """The file asks for what no state dict needs, or contradicts itself."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Return name -> array of the state dict in a .pth file, of either of PyTorch's formats.

    A state dict under "state_dict" or "model" is found there; the prefixes that PyTorch's
    wrappers give to all names ("module.", "_orig_mod.") are taken off. Arrays are views of the
    file's content; they take no more memory than the file.

    Raises:
      UsageError: the file is damaged or holds something else than tensors; nothing of it ran.
    """
    content = path.read_bytes()
    reader = _read_zip if content.startswith(ZIP_MAGIC) else _read_stream
    try:
        root, storages = reader(content)
        return {name: _view(name, tensor, storages) for name, tensor in _state_dict(root).items()}
    except _Refused as error:
        problem, remedy = f"refused ({error}", "save the model's state_dict alone, or safetensors"
    except Exception as error:  # a damaged pickle makes pickle raise nearly anything
        problem, remedy = f"damaged ({type(error).__name__}: {error}", "get it anew"
    # one line, whatever names the file has
    raise UsageError(f"{path} is {ascii(problem)[1:-1][:300]}); {remedy}")


def _read_zip(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the unpickled object and key -> storage of the format since PyTorch 1.6."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise _Refused("its archive is compressed, which PyTorch never does")
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Refused("its archive holds no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise _Refused("its numbers are big-endian")
        described: dict[str, _Storage] = {}
        root = _load(io.BytesIO(archive.read(pickles[0])), described)
        if sum(storage.count * storage.dtype.itemsize for storage in described.values()) > len(
            content
        ):
            raise _Refused("its storages claim more numbers than the file holds")
        storages = {}
        for key, storage in described.items():
            name = f"{folder}data/{key}"
            if name not in entries:
                raise _Refused(f"storage {key} is missing")
            if entries[name].file_size != storage.count * storage.dtype.itemsize:
                raise _Refused(f"storage {key} has not the {storage.count} numbers it claims")
            storages[key] = np.frombuffer(archive.read(name), storage.dtype)
    return root, storages


def _read_stream(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the unpickled object and key -> storage of the format before PyTorch 1.6.

    Five pickles (magic number, version, platform, object, keys of the storages), then each
    storage: its length as an int64, and its numbers.
    """
    file = io.BytesIO(content)
    described: dict[str, _Storage] = {}
    _load(file, {})
    version, platform = _load(file, {}), _load(file, {})
    if version != 1001 or not isinstance(platform, dict):
        raise _Refused(f"its format has version {version!r}, not 1001")
    if not platform.get("little_endian", True):
        raise _Refused("its numbers are big-endian")
    root = _load(file, described)
    keys = _load(file, {})
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(described):
        raise _Refused("its storages are not those that its tensors use")
    storages = {}
    for key in keys:
        storage = described[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise _Refused(f"storage {key} has not the {storage.count} numbers it claims")
        start = file.tell()
        if count * storage.dtype.itemsize > len(content) - start:
            raise EOFError("the file ends early")
        storages[key] = np.frombuffer(content, storage.dtype, count, start)
        file.seek(start + count * storage.dtype.itemsize)
    if file.tell() != len(content):
        raise _Refused("it goes on after its last storage")
    return root, storages


def _load(file: io.BytesIO, storages: dict[str, _Storage]) -> Any:
    """Unpickle one object from where the file stands, noting the storages it refers to."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in OPCODES:
            raise _Refused(f"its pickle uses the instruction {opcode.name}")
        if file.tell() - start > LARGEST_PICKLE:
            raise _Refused(f"its pickle is longer than {LARGEST_PICKLE} bytes")
        # Python keeps its memo in an array as long as the largest index
        if opcode.name.endswith("PUT") and not 0 <= argument < file.tell():
            raise _Refused(f"its pickle has a memo index of {argument}")
    file.seek(start)
    return _Unpickler(file, storages).load()


class _Unpickler(pickle.Unpickler):
    """Looks up no name but those of `_names`, and no storage but by description."""

    def __init__(self, file: io.BytesIO, storages: dict[str, _Storage]):
        super().__init__(file, encoding="utf-8")
        self.names = _names()
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.names:
            raise _Refused(f"it asks for {module}.{name}")
        return self.names[module, name]

    def persistent_load(self, description: Any) -> _Storage:
        if not isinstance(description, tuple) or len(description) not in (5, 6):
            raise _Refused("a storage is not described as PyTorch does")
        kind, dtype, key, _, count, *view = description
        known = kind == "storage" and dtype in STORAGES and isinstance(key, str)
        if not known or not _natural(count) or view not in ([], [None]):
            raise _Refused("a storage is not described as PyTorch does")
        storage = _Storage(key, np.dtype(STORAGES[dtype]), count)
        if self.storages.setdefault(key, storage) != storage:
            raise _Refused(f"storage {key} is described in two ways")
        return storage


def _names() -> dict[tuple[str, str], Any]:
    """Return what a file may look up; made anew for each, so that none can change another's."""

    def rebuild_tensor(storage, offset, size, stride, requires_grad, hooks, metadata=None):
        return _Tensor(storage, offset, size, stride)

    def rebuild_parameter(tensor, requires_grad, hooks):
        return tensor

    names: dict[tuple[str, str], Callable | str] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    }
    return names | {("torch", name): name for name in STORAGES}


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _state_dict(root: Any) -> dict[str, _Tensor]:
    """Return the state dict in what was unpickled, by plain names."""
    for key in ("state_dict", "model"):
        if isinstance(root, dict) and isinstance(root.get(key), dict):
            root = root[key]
    if not isinstance(root, dict) or not root:
        raise _Refused("it holds no state dict")
    for name, value in root.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _Refused(f"its entry {name!r} is no tensor")
    tensors = dict(root)
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _view(name: str, tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """Return the tensor as a view of its storage, which it is checked to stay inside of."""
    storage, offset, size, stride = tensor
    lengths = (size, stride)
    if not (
        isinstance(storage, _Storage)
        and _natural(offset)
        and all(isinstance(numbers, tuple) and all(map(_natural, numbers)) for numbers in lengths)
        and len(size) == len(stride) <= 32
    ):
        raise _Refused(f"{name} is not described as PyTorch does")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise _Refused(f"{name} reaches beyond its storage")
    numbers = storages[storage.key]
    if not count:
        return np.empty(size, storage.dtype)
    steps = [step * storage.dtype.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps, writeable=False)
