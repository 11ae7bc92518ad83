"""What the operations of a compiled program read and write, by memory and by what they do.

A compiler's own sum of the bytes accessed takes all memories together. Of a TPU's program much lies
in the chip's vector memory, which is beside its cores and no bound: what the main memory moves is
counted here from the program's text, in which an array's layout names its memory.
"""

import math
import re
from collections import defaultdict
from typing import NamedTuple

from cnn_jax.programs import hlo

_BYTES = {"pred": 1, "c64": 8, "c128": 16, "token": 0, "opaque": 0}

# they name what is there, or wait for it
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Moved(NamedTuple):
    """Bytes read and written: of the main memory, and of all memories together."""

    main: float = 0.0
    all: float = 0.0

    def __add__(self, other):
        return Moved(self.main + other.main, self.all + other.all)

    def times(self, count: int) -> "Moved":
        """Return what as many such operations move."""
        return Moved(self.main * count, self.all * count)


def array_bytes(dtype: str, shape: str) -> int:
    """Return an array's size: array_bytes("bf16", "128,7,7,64")."""
    width = _BYTES[dtype] if dtype in _BYTES else max(1, int(re.search(r"\d+", dtype)[0]) // 8)
    return width * math.prod(int(length) for length in shape.split(",") if length)


def traffic(program: hlo.Program) -> dict[str, Moved]:
    """Return what a compiled program's operations move in a call, by what they do.

    An operation reads each operand once, of one that it only slices the slice, and writes its
    results; what it computes inside moves nothing. How often it runs, see `hlo.executed`. The
    kinds: "convolutions", "input gradients" and "filter gradients", of matrix products too and with
    all that is fused into them; "pooling", "reductions", "elementwise", "copies" between memories
    and layouts, "collectives".
    """
    moved = defaultdict(Moved)
    for each in hlo.executed(program):
        size = _operation(each, program.computations)
        if size is not None:
            moved[_kind(each.instruction, program.computations)] += size.times(each.times)
    return dict(moved)


def repeated(program: hlo.Program) -> tuple[float, float]:
    """Return the floating-point operations and the bytes that a compiler's own sums leave out.

    They are those of each loop's turns but the first; bytes are those of all memories, operations
    those of convolutions and matrix products, two a multiply-add.
    """
    known = program.computations
    flops = moved = 0.0
    for each in hlo.executed(program):
        if each.times > 1:
            again = each.times - 1
            flops += again * 2 * hlo.multiply_adds(each.instruction, each.shapes, known)
            moved += again * (_operation(each, known) or Moved()).all
    return flops, moved


def _operation(executed: hlo.Executed, known: hlo.Computations) -> Moved | None:
    """Return what an operation moves when it runs once; None of what moves nothing."""
    each, _, shapes = executed
    kind = each.operation
    if kind in _FREE or kind.endswith("-done") or "ConcatBitcast" in each.attributes:
        return None
    if kind in ("copy-start", "slice-start"):
        arrays = hlo.ARRAY.findall(each.shape)
        result = arrays[0] if kind == "copy-start" else arrays[1]
        source = hlo.ARRAY.findall(shapes[each.operands[0]])[0]
        return _moved(*result) + _moved(*result[:2], source[2])
    moved = _size(each.shape)
    for index, operand in enumerate(each.operands):
        moved += _read(each, index, shapes[operand], known)
    return moved


def _read(instruction, index, shape, computations) -> Moved:
    """What an operation reads of its operand: a fusion that only slices it reads the slices."""
    whole = _size(shape)
    if instruction.operation in ("slice", "dynamic-slice"):
        return _size(instruction.shape)
    if instruction.operation != "fusion":
        return whole
    body = computations[instruction.called()]
    inside = body.parameters[index]
    reads = [_read(user, i, inside.shape, computations).all for user, i in body.users[inside.name]]
    share = min(1.0, sum(reads) / whole.all) if whole.all and reads else 1.0
    return Moved(whole.main * share, whole.all * share)


def _size(shape: str) -> Moved:
    return sum((_moved(*array) for array in hlo.ARRAY.findall(shape)), Moved())


def _moved(dtype: str, lengths: str, layout: str) -> Moved:
    size = array_bytes(dtype, lengths)
    return Moved(0.0 if "S(" in layout else size, size)


def _kind(instruction, computations) -> str:
    operation = instruction.operation.removesuffix("-start")
    if operation in COLLECTIVES:
        return "collectives"
    if operation in ("copy", "slice", "transpose"):
        return "copies"
    called = instruction.called()
    body = [instruction, *(computations[called].instructions if called else ())]
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
