"""A compiled program's text: its computations, what runs how often, and its multiply-adds."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

# its kind, its lengths, and its layout
ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:body|condition|to_apply|calls)=%([\w.\-]+)|branch_computations=\{(.*?)\}")
_CALLS = {"while", "conditional", "call", "async-start"}
_NAME = re.compile(r"%([\w.\-]+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Instruction(NamedTuple):
    """A line of a program: NAME = SHAPE OPERATION(ARGUMENTS), ATTRIBUTES.

    operands: the names of arrays among the arguments.
    """

    root: bool
    name: str
    shape: str
    operation: str
    arguments: str
    attributes: str
    operands: tuple[str, ...]

    def called(self) -> str | None:
        """Return the name of the computation that a fusion is made of."""
        found = re.search(r"calls=%([\w.\-]+)", self.attributes)
        return found and found[1]


class Computation(NamedTuple):
    """A part of a program.

    users: the instructions that an array goes into, and as which operand.
    """

    instructions: list[Instruction]
    parameters: dict[int, Instruction]
    users: dict[str, list[tuple[Instruction, int]]]


Computations = Mapping[str, Computation]


class Program(NamedTuple):
    """A program's computations by their names, and the name of the first."""

    computations: Computations
    entry: str


class Executed(NamedTuple):
    """An instruction, how often it runs in a call, and the shapes of what is named beside it."""

    instruction: Instruction
    times: int
    shapes: Mapping[str, str]


def read(text: str) -> Program:
    """Return the program of a compiled program's text."""
    found, entry, own = {}, "", Computation([], {}, {})
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            own = found[start[1]] = Computation([], {}, defaultdict(list))
            entry = start[1] if line.startswith("ENTRY") else entry
        elif match := _INSTRUCTION.match(line):
            root, *head, rest = match.groups()
            arguments, _, attributes = rest.partition(")")
            operands = tuple(_NAME.findall(arguments))
            each = Instruction(bool(root), *head, arguments, attributes, operands)
            own.instructions.append(each)
            if each.operation == "parameter":
                own.parameters[int(arguments)] = each
            for index, operand in enumerate(operands):
                own.users[operand].append((each, index))
    return Program(found, entry)


def executed(program: Program) -> Iterator[Executed]:
    """Yield what a program runs, one after the other.

    The body of a loop runs as often as the program tells; where only the data says it, once, as in
    the compiler's own sums, in which the body of every loop counts once.
    """
    return _executed(program.computations, program.entry, 1)


def _executed(known, name, times):
    shapes = {each.name: each.shape for each in known[name].instructions}
    for each in known[name].instructions:
        if each.operation not in _CALLS:
            yield Executed(each, times, shapes)
            continue
        turns = _turns(each, known) if each.operation == "while" else 1
        for called in _CALLED.findall(each.attributes):
            for other in re.findall(r"[\w.\-]+", " ".join(called)):
                yield from _executed(known, other, times * turns)


def _turns(loop, known):
    """How often a loop turns that counts from nought to a constant, as jax.lax.scan does."""
    if told := _TURNS.search(loop.attributes):
        return int(told[1])
    condition = known[re.search(r"condition=%([\w.\-]+)", loop.attributes)[1]].instructions
    constants = {each.name: each.arguments for each in condition if each.operation == "constant"}
    for each in condition:
        if each.root and each.operation == "compare" and "direction=LT" in each.attributes:
            limits = [constants[name] for name in each.operands if name in constants]
            return int(limits[0]) if limits else 1
    return 1


def multiply_adds(each: Instruction, shapes: Mapping[str, str], known: Computations) -> int:
    """Return those of a convolution or matrix product, or of all that a fusion holds.

    Of a convolution as its compiler counts them: where the window lies on zeros that pad or dilate
    the input there are none.
    """
    if each.operation == "fusion":
        body = known[each.called()].instructions
        inner = {other.name: other.shape for other in body}
        return sum(multiply_adds(other, inner, known) for other in body)
    if each.operation not in ("convolution", "dot"):
        return 0
    left, right = (_lengths(shapes[name]) for name in each.operands[:2])
    out = _lengths(each.shape)
    if each.operation == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.attributes)[1]
        return math.prod(out) * math.prod(left[int(i)] for i in contracted.split(",") if i)
    inputs, kernel, outputs = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.attributes).groups()
    window = re.search(r"window=\{(.*?)\}", each.attributes)
    given = dict(part.split("=") for part in window[1].split()) if window else {}
    count = math.prod(out[outputs.index(label)] for label in "bf") * right[kernel.index("i")]
    for axis in range(len(inputs) - 2):
        length, taps, places = (
            lengths[labels.index(str(axis))]
            for lengths, labels in ((left, inputs), (right, kernel), (out, outputs))
        )
        step, spread, spacing = (
            int(given[name].split("x")[axis]) if name in given else 1
            for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        before = int(given["pad"].split("x")[axis].split("_")[0]) if "pad" in given else 0
        met = np.arange(places)[:, None] * step + np.arange(taps) * spacing - before
        inside = (met >= 0) & (met <= (length - 1) * spread) & (met % spread == 0)
        count *= int(inside.sum())
    return count


def _lengths(shape):
    return [int(length) for length in ARRAY.search(shape)[2].split(",") if length]
