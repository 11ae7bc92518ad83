"""What the operations of a compiled program read and write, by memory and by what they do.

A compiler's own sum of the bytes accessed takes all memories together. Of a TPU's program much lies
in the chip's vector memory, which is beside its cores and no bound: what the main memory moves is
counted here from the program's text, in which an array's layout names its memory.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

# its kind, its lengths, and its layout
ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_BYTES = {"pred": 1, "c64": 8, "c128": 16, "token": 0, "opaque": 0}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:body|condition|to_apply|calls)=%([\w.\-]+)|branch_computations=\{(.*?)\}")

# they name what is there, or wait for it
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all"}
_CALLS = {"while", "conditional", "call", "async-start"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Moved(NamedTuple):
    """Bytes read and written: of the main memory, and of all memories together."""

    main: float = 0.0
    all: float = 0.0

    def __add__(self, other):
        return Moved(self.main + other.main, self.all + other.all)


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    arguments: str
    attributes: str

    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.arguments)


def array_bytes(dtype: str, shape: str) -> int:
    """Return an array's size: array_bytes("bf16", "128,7,7,64")."""
    width = _BYTES[dtype] if dtype in _BYTES else max(1, int(re.search(r"\d+", dtype)[0]) // 8)
    return width * math.prod(int(length) for length in shape.split(",") if length)


def traffic(program: str) -> dict[str, Moved]:
    """Return what a compiled program's operations move in a call, by what they do.

    An operation reads each operand once, of one that it only slices the slice, and writes its
    results; what it computes inside moves nothing. The body of a loop counts once, as it does in
    the compiler's own sum. The kinds: "convolutions", "input gradients" and "filter gradients", of
    matrix products too and with all that is fused into them; "pooling", "reductions",
    "elementwise", "copies" between memories and layouts, "collectives".
    """
    computations, entry = _computations(program)
    moved = defaultdict(Moved)
    for instruction, size in _operations(computations, entry):
        moved[_kind(instruction, computations)] += size
    return dict(moved)


def _computations(program: str) -> tuple[dict[str, list[_Instruction]], str]:
    found, entry, name = {}, "", ""
    for line in program.splitlines():
        if start := _COMPUTATION.match(line):
            name = start[1]
            found[name], entry = [], name if line.startswith("ENTRY") else entry
        elif match := _INSTRUCTION.match(line):
            *head, rest = match.groups()
            arguments, _, attributes = rest.partition(")")
            found[name].append(_Instruction(*head, arguments, attributes))
    return found, entry


def _operations(computations, name) -> Iterator[tuple[_Instruction, Moved]]:
    """Yield what a computation, and those that it calls, run one after the other."""
    shapes = {each.name: each.shape for each in computations[name]}
    for each in computations[name]:
        kind = each.operation
        if kind in _CALLS:
            for called in _CALLED.findall(each.attributes):
                for other in re.findall(r"[\w.\-]+", " ".join(called)):
                    yield from _operations(computations, other)
        elif kind in _FREE or kind.endswith("-done") or "ConcatBitcast" in each.attributes:
            continue
        elif kind in ("copy-start", "slice-start"):
            arrays = ARRAY.findall(each.shape)
            result = arrays[0] if kind == "copy-start" else arrays[1]
            source = ARRAY.findall(shapes[each.operands()[0]])[0]
            yield each, _moved(*result) + _moved(*result[:2], source[2])
        else:
            moved = _size(each.shape)
            for index, operand in enumerate(each.operands()):
                moved += _read(each, index, shapes[operand], computations)
            yield each, moved


def _read(instruction, index, shape, computations) -> Moved:
    """What an operation reads of its operand: a fusion that only slices it reads the slices."""
    whole = _size(shape)
    if instruction.operation in ("slice", "dynamic-slice"):
        return _size(instruction.shape)
    if instruction.operation != "fusion":
        return whole
    body = computations[re.search(r"calls=%([\w.\-]+)", instruction.attributes)[1]]
    inside = next(x for x in body if x.operation == "parameter" and x.arguments == str(index))
    reads = [
        _read(user, i, inside.shape, computations).all
        for user in body
        for i, operand in enumerate(user.operands())
        if operand == inside.name
    ]
    share = min(1.0, sum(reads) / whole.all) if whole.all and reads else 1.0
    return Moved(whole.main * share, whole.all * share)


def _size(shape: str) -> Moved:
    return sum((_moved(*array) for array in ARRAY.findall(shape)), Moved())


def _moved(dtype: str, lengths: str, layout: str) -> Moved:
    size = array_bytes(dtype, lengths)
    return Moved(0.0 if "S(" in layout else size, size)


def _kind(instruction, computations) -> str:
    operation = instruction.operation.removesuffix("-start")
    if operation in COLLECTIVES:
        return "collectives"
    if operation in ("copy", "slice", "transpose"):
        return "copies"
    called = re.search(r"calls=%([\w.\-]+)", instruction.attributes)
    body = [instruction, *(computations[called[1]] if called else ())]
    for each in body:
        if each.operation in ("convolution", "dot"):
            # where images are contracted, their axis, the first, is the convolution's features
            if "dim_labels=f" in each.attributes and "transpose(jvp" in each.attributes:
                return "filter gradients"
            return "input gradients" if "transpose(jvp" in each.attributes else "convolutions"
    operations = {each.operation for each in body}
    if operations & {"reduce-window", "select-and-scatter"}:
        return "pooling"
    return "reductions" if "reduce" in operations else "elementwise"
