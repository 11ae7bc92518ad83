"""Reading the tensors of PyTorch's .pth files, without PyTorch and without running what they hold.

A .pth file is a pickle, and a pickle is a program. Here it can build containers, numbers, strings
and descriptions of tensors, and nothing else: its instructions are checked against a list before
any of them runs, and the only names that it can look up are those in `_names`, all of them ours.
What training scripts save beside the weights becomes an object that holds nothing.
"""

import collections
import io
import math
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from cnn_jax.errors import UsageError
from cnn_jax.weights import state_dict

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
UNICODE BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_SET ADDITEMS FROZENSET
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
OPCODES = frozenset(_OPCODES.split())

# What training scripts save beside the weights: module -> names. No object of these is made.
BESIDE = {
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "collections": "Counter defaultdict deque",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "_codecs": "encode",  # bytes, such as a NumPy scalar's
    "builtins": "set frozenset complex range slice",
    "__builtin__": "set frozenset complex xrange slice",
    "copyreg": "_reconstructor",
    "copy_reg": "_reconstructor",
    "pathlib": "PosixPath WindowsPath PurePosixPath PureWindowsPath",
    "pathlib._local": "PosixPath WindowsPath PurePosixPath PureWindowsPath",
    "datetime": "datetime date time timedelta",
    "torch": "Size device float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool",
    "torch.torch_version": "TorchVersion",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning.fabric.utilities.data": "AttributeDict",
}

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
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Refused(Exception):
    """The file asks for what no state dict needs, or contradicts itself."""


def read(path: Path, averaged: bool = True) -> state_dict.Found:
    """Return the network's tensors in a .pth file, of either of PyTorch's formats, as arrays.

    They are views of the file's content and take no more memory than it. See state_dict.find.

    Raises:
      UsageError: the file is damaged or holds something else than tensors; nothing of it ran.
    """
    content = path.read_bytes()
    reader = _read_zip if content.startswith(ZIP_MAGIC) else _read_stream
    try:
        root, storages = reader(content)
        found = state_dict.find(root, _Tensor, averaged)
        if not found.tensors:
            entries = f"; its entries are {', '.join(map(str, root))}" if _is_dict(root) else ""
            raise _Refused(f"it holds no state dict{entries}")
        arrays = {name: _view(name, each, storages) for name, each in found.tensors.items()}
        return found._replace(tensors=arrays)
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

    def rebuild_parameter(tensor, requires_grad, hooks, state=None):
        return tensor

    class Beside:
        """Takes whatever it is made of, and keeps nothing."""

        def __new__(cls, *_):
            return super().__new__(cls)

        def __init__(self, *_):
            pass

        def __setstate__(self, _):
            pass

        def __setitem__(self, *_):
            pass

        append = extend = add = __setstate__

    beside = [(module, name) for module, names in BESIDE.items() for name in names.split()]
    names: dict[tuple[str, str], Any] = dict.fromkeys(beside, Beside)
    return names | {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter,
        **{("torch", name): name for name in STORAGES},
    }


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_dict(root: Any) -> bool:
    return isinstance(root, dict) and all(isinstance(key, str) for key in root)


def _view(name: str, tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """Return the tensor as a view of its storage, which it is checked to stay inside of."""
    storage, offset, shape, stride = tensor
    lengths = (shape, stride)
    if not (
        isinstance(storage, _Storage)
        and _natural(offset)
        and all(isinstance(numbers, tuple) and all(map(_natural, numbers)) for numbers in lengths)
        and len(shape) == len(stride) <= 32
    ):
        raise _Refused(f"{name} is not described as PyTorch does")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise _Refused(f"{name} reaches beyond its storage")
    numbers = storages[storage.key]
    if not count:
        return np.empty(shape, storage.dtype)
    steps = [step * storage.dtype.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)
