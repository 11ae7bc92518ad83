"""ONNX graphs of JAX functions: every primitive of a jaxpr becomes a node or a few.

What depends on constants alone, such as the folding of batch norms, is computed here. Convolutions
and windows are NCHW in ONNX and stand between two transpositions, most of which runtimes cancel.
"""

import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import jax
import numpy as np
from jax.extend.core import Literal

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.export.program import LARGEST, Program, symbolic

OPSET = 18
SMALL = 1024  # bytes: up to here a constant stays in the graph, also where weights lie beside it

# primitives that are one node of the same operands
SAME = {
    "abs": "Abs",
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "ceil": "Ceil",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "stop_gradient": "Identity",
    "copy": "Identity",
    "copy_p": "Identity",
    "optimization_barrier": "Identity",
    "sub": "Sub",
    "tanh": "Tanh",
}

# primitives that are the jaxpr in one of their parameters
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")

Value = "str | np.ndarray"  # the name of what the graph computes, or a constant


class Graph:
    """The nodes and constants so far.  free: the symbolic size; its value is a node's."""

    def __init__(self, helper: Any, numpy_helper: Any, free: Any) -> None:
        self.helper, self.numpy_helper, self.free = helper, numpy_helper, free
        self.nodes, self.constants, self.count = [], {}, 0

    def name(self, value: Value) -> str:
        """Return the value's name; a constant becomes an initializer, once."""
        if isinstance(value, str):
            return value
        key = id(value)
        if key not in self.constants:
            self.constants[key] = f"constant{len(self.constants)}", value
        return self.constants[key][0]

    def __call__(self, operation: str, *inputs: Value, **attributes: Any) -> str:
        """Append a node and return its output's name."""
        self.count += 1
        output = f"value{self.count}"
        names = [self.name(each) for each in inputs]
        self.nodes.append(self.helper.make_node(operation, names, [output], **attributes))
        return output

    def integers(self, values: Iterable[int]) -> np.ndarray:
        """Return a constant of int64."""
        return np.asarray(list(values), np.int64)

    def permuted(self, x: Value, order: Sequence[int]) -> Value:
        """Return x with its axes in this order."""
        if list(order) == list(range(len(order))):
            return x
        if isinstance(x, np.ndarray):
            return x.transpose(order)
        return self("Transpose", x, perm=list(order))

    def shape(self, sizes: Sequence[Any]) -> Value:
        """Return a shape, in which some sizes may be multiples of the free one."""
        if not any(map(_is_symbolic, sizes)):
            return self.integers(sizes)
        parts = [
            self("Mul", str(self.free), self.integers([int(size // self.free)]))
            if _is_symbolic(size)
            else self.integers([size])
            for size in sizes
        ]
        return self("Concat", *parts, axis=0)

    def reshaped(self, x: Value, sizes: Sequence[Any]) -> Value:
        """Return x in another shape, in which some sizes may be multiples of the free one."""
        free = [i for i, size in enumerate(sizes) if _is_symbolic(size)]
        if len(free) == 1 and 0 not in sizes:
            return self(
                "Reshape", x, self.integers(-1 if i in free else s for i, s in enumerate(sizes))
            )
        return self("Reshape", x, self.shape(sizes))


def _is_symbolic(size: Any) -> bool:
    return not isinstance(size, int | np.integer)


def _conv(graph, eqn, x, kernel):
    p, numbers = eqn.params, eqn.params["dimension_numbers"]
    x = graph.permuted(x, numbers.lhs_spec)
    kernel = graph.permuted(kernel, numbers.rhs_spec)  # [features, c / groups, *sizes]
    if p["batch_group_count"] != 1:
        raise UsageError("a convolution with groups of examples has no ONNX form here")
    groups, dilations = p["feature_group_count"], list(p["rhs_dilation"])
    shape = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec]
    settings = {"group": groups, "dilations": dilations, "kernel_shape": shape[2:]}
    pairs = list(p["padding"])
    if any(step > 1 for step in p["lhs_dilation"]):
        if any(step > 1 for step in p["window_strides"]) or not isinstance(kernel, np.ndarray):
            raise UsageError("a strided transposed convolution has no ONNX form here")
        spans = [(size - 1) * step for size, step in zip(shape[2:], dilations, strict=True)]
        pairs = [(s - a, s - b) for s, (a, b) in zip(spans, pairs, strict=True)]
        more = [max(0, -after) for _, after in pairs]
        kernel = np.flip(kernel, range(2, kernel.ndim))
        kernel = kernel.reshape(groups, -1, *kernel.shape[1:]).swapaxes(1, 2)
        kernel = kernel.reshape(-1, *kernel.shape[2:])
        pads = [before for before, _ in pairs] + [max(0, after) for _, after in pairs]
        if min(pads) < 0:
            raise UsageError("a transposed convolution padded before has no ONNX form here")
        settings |= {"strides": list(p["lhs_dilation"]), "output_padding": more, "pads": pads}
        out = graph("ConvTranspose", x, kernel, **settings)
    else:
        if min(map(min, pairs)) < 0:
            x = _padded(graph, x, [(0, 0), (0, 0), *pairs], np.zeros((), eqn.outvars[0].aval.dtype))
            pairs = [(0, 0)] * len(pairs)
        pads = [before for before, _ in pairs] + [after for _, after in pairs]
        settings |= {"strides": list(p["window_strides"]), "pads": pads}
        out = graph("Conv", x, kernel, **settings)
    return graph.permuted(out, np.argsort(numbers.out_spec).tolist())


def _padded(graph, x, pairs, value):
    ends = [before for before, _ in pairs] + [after for _, after in pairs]
    return x if not any(ends) else graph("Pad", x, graph.integers(ends), value)


def _window(graph, eqn, x, operation, empty, **attributes):
    """A window over all axes but the first and the last."""
    p = eqn.params
    sizes, axes = p["window_dimensions"], len(p["window_dimensions"])
    dilated = max(*p["base_dilation"], *p["window_dilation"]) > 1
    if dilated or (sizes[0], sizes[-1]) != (1, 1) or axes < 3:
        raise UsageError("a window over examples or channels, or with gaps, has no ONNX form here")
    x = _padded(graph, x, p["padding"], np.asarray(empty, eqn.outvars[0].aval.dtype))
    x = graph.permuted(x, [0, axes - 1, *range(1, axes - 1)])
    strides = list(p["window_strides"][1:-1])
    out = graph(operation, x, kernel_shape=list(sizes[1:-1]), strides=strides, **attributes)
    return graph.permuted(out, [0, *range(2, axes), 1])


def _window_max(graph, eqn, x):
    return _window(graph, eqn, x, "MaxPool", -np.inf)


def _window_sum(graph, eqn, x):
    mean = _window(graph, eqn, x, "AveragePool", 0)
    count = math.prod(eqn.params["window_dimensions"])
    return graph("Mul", mean, np.asarray(count, eqn.outvars[0].aval.dtype))


def _dot(graph, eqn, x, y):
    (contract_x, contract_y), (batch_x, batch_y) = eqn.params["dimension_numbers"]
    ranks = [each.aval.ndim for each in eqn.invars]
    if not batch_x and ranks[1] == 2 and (*contract_x, *contract_y) == (ranks[0] - 1, 0):
        return graph("MatMul", x, y)
    letters = iter(string.ascii_letters)
    of_x, of_y = [next(letters) for _ in range(ranks[0])], [""] * ranks[1]
    for one, other in zip((*contract_x, *batch_x), (*contract_y, *batch_y), strict=True):
        of_y[other] = of_x[one]
    of_y = [letter or next(letters) for letter in of_y]
    out = [of_x[axis] for axis in batch_x]
    out += [letter for axis, letter in enumerate(of_x) if axis not in (*contract_x, *batch_x)]
    out += [letter for axis, letter in enumerate(of_y) if axis not in (*contract_y, *batch_y)]
    return graph("Einsum", x, y, equation=f"{''.join(of_x)},{''.join(of_y)}->{''.join(out)}")


def _broadcast(graph, eqn, x, *_sizes):
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    before = eqn.invars[0].aval.shape
    ones = [before[dims.index(axis)] if axis in dims else 1 for axis in range(len(shape))]
    x = graph.reshaped(x, ones) if len(ones) != len(before) else x
    if tuple(ones) == tuple(shape):
        return x
    # a 1 leaves the size as it is
    wanted = [
        1 if one is size or one == size else size for one, size in zip(ones, shape, strict=True)
    ]
    return graph("Expand", x, graph.shape(wanted))


def _slice(graph, eqn, x):
    p, shape = eqn.params, eqn.invars[0].aval.shape
    steps = p["strides"] or (1,) * len(shape)
    axes = [
        axis
        for axis, (start, limit, step) in enumerate(
            zip(p["start_indices"], p["limit_indices"], steps, strict=True)
        )
        if _is_symbolic(limit) is False and (start, limit, step) != (0, shape[axis], 1)
    ]
    return graph(
        "Slice",
        x,
        *(
            graph.integers(each[axis] for axis in axes)
            for each in (p["start_indices"], p["limit_indices"])
        ),
        graph.integers(axes),
        graph.integers(steps[axis] for axis in axes),
    )


def _reverse(graph, eqn, x):
    axes = eqn.params["dimensions"]
    first, end, back = ([value] * len(axes) for value in (-1, np.iinfo(np.int64).min, -1))
    return graph("Slice", x, *map(graph.integers, (first, end, axes, back)))


def _pad(graph, eqn, x, value):
    if any(gap for *_, gap in eqn.params["padding_config"]):
        raise UsageError("padding between the entries has no ONNX form here")
    return _padded(graph, x, [pair[:2] for pair in eqn.params["padding_config"]], value)


def _reduce(operation: str) -> Callable:
    def convert(graph, eqn, x):
        return graph(operation, x, graph.integers(eqn.params["axes"]), keepdims=0)

    return convert


def _cast(graph, eqn, x):
    dtype = graph.helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["new_dtype"]))
    return graph("Cast", x, to=dtype)


def _select(graph, eqn, which, *cases):
    if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
        raise UsageError("a choice among more than two has no ONNX form here")
    return graph("Where", which, cases[1], cases[0])


def _gather(graph, eqn, x, indices):
    """Constant places: a part of some axes, or along each axis a list, as x[:, ::2, ::2] has it.

    Slices become these where the batch is symbolic. Computed ones: see _gather_entries.
    """
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    axes, shape = numbers.start_index_map, eqn.invars[0].aval.shape
    if isinstance(indices, str) or numbers.operand_batching_dims:
        return _gather_entries(graph, eqn, x, indices)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    whole = all(sizes[axis] == shape[axis] for axis in others)
    if whole and not numbers.collapsed_slice_dims and indices.ndim == 1:
        lengths = [sizes[axis] for axis in axes]
        ends = [start + length for start, length in zip(indices, lengths, strict=True)]
        return graph("Slice", x, *map(graph.integers, (indices, ends, axes)))
    rank = eqn.outvars[0].aval.ndim
    placed = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    if not whole or numbers.collapsed_slice_dims != axes:
        raise UsageError("this kind of indexing has no ONNX form here")
    if len(axes) == 1:
        if placed != list(range(axes[0], axes[0] + indices.ndim - 1)):
            raise UsageError("this kind of indexing has no ONNX form here")
        return graph("Gather", x, np.asarray(indices[..., 0], np.int64), axis=axes[0])
    if indices.ndim != len(axes) + 1:
        raise UsageError("this kind of indexing has no ONNX form here")
    lists = [
        np.moveaxis(indices[..., i], i, 0).reshape(n, -1)[:, 0]
        for i, n in enumerate(indices.shape[:-1])
    ]
    if placed != list(axes) or not np.array_equal(
        np.stack(np.meshgrid(*lists, indexing="ij"), -1), indices
    ):
        raise UsageError("this kind of indexing has no ONNX form here")
    for axis, places in zip(axes, lists, strict=True):
        x = graph("Gather", x, np.asarray(places, np.int64), axis=axis)
    return x


def _gather_entries(graph, eqn, x, indices):
    """Computed places along the axes behind those of a batch, as vmap of x[i, j] has it."""
    numbers, shape = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
    batch, axes = numbers.operand_batching_dims, numbers.start_index_map
    places = eqn.invars[1].aval.ndim - 1  # axes of the result that the indices give
    rank = eqn.outvars[0].aval.ndim
    if (
        eqn.params["mode"] != jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
        or (*batch, *axes) != tuple(range(len(batch) + len(axes)))
        or numbers.start_indices_batching_dims != batch
        or numbers.collapsed_slice_dims != axes
        or eqn.params["slice_sizes"][len(batch) + len(axes) :] != shape[len(batch) + len(axes) :]
        or numbers.offset_dims != tuple(range(places, rank))
    ):
        raise UsageError("this kind of indexing by computed numbers has no ONNX form here")
    indices = graph("Cast", indices, to=graph.helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)))
    return graph("GatherND", x, indices, batch_dims=len(batch))


def _round(graph, eqn, x):
    """ONNX rounds halves to even numbers."""
    even = graph("Round", x)
    if eqn.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        return even
    sign, half = graph("Sign", x), _like(eqn, 0.5)
    whole = graph("Floor", graph("Abs", x))
    is_half = graph("Equal", graph("Sub", graph("Abs", x), whole), half)
    away = graph("Mul", sign, graph("Add", whole, _like(eqn, 1)))
    return graph("Where", is_half, away, even)


def _split(graph, eqn, x):
    """Return the parts along an axis."""
    axis, ends = eqn.params["axis"], np.cumsum(eqn.params["sizes"])
    starts = ends - eqn.params["sizes"]
    return [
        graph("Slice", x, *(graph.integers([each]) for each in (start, end, axis)))
        for start, end in zip(starts, ends, strict=True)
    ]


def _stack(graph, eqn, *parts):
    axis = eqn.params["axis"]
    rows = [graph("Unsqueeze", part, graph.integers([axis])) for part in parts]
    return graph("Concat", *rows, axis=axis)


def _max(graph, eqn, x, y):
    """A ReLU by its name, as runtimes fuse that with a convolution."""
    known, other = (x, y) if isinstance(x, np.ndarray) else (y, x)
    relu = isinstance(known, np.ndarray) and not known.shape and known == 0
    return graph("Relu", other) if relu else graph("Max", x, y)


def _unpool(graph, eqn, values, indices):
    n, *spatial, c = eqn.outvars[0].aval.shape
    pixels = eqn.invars[0].aval.shape[1:-1]
    shape = graph.shape([n, math.prod(spatial), c])
    zero = graph.numpy_helper.from_array(np.zeros(1, eqn.outvars[0].aval.dtype))
    empty = graph("ConstantOfShape", shape, value=zero)
    indices, values = (graph.reshaped(x, [n, math.prod(pixels), c]) for x in (indices, values))
    return graph.reshaped(
        graph("ScatterElements", empty, indices, values, axis=1), eqn.outvars[0].aval.shape
    )


def _like(eqn, value):
    return np.asarray(value, eqn.outvars[0].aval.dtype)


# name -> f(graph, equation, *operands) -> result
SEVERAL: dict[str, Callable[..., Value]] = {
    "broadcast_in_dim": _broadcast,
    "clamp": lambda graph, eqn, low, x, high: graph("Min", graph("Max", x, low), high),
    "concatenate": lambda graph, eqn, *parts: graph("Concat", *parts, axis=eqn.params["dimension"]),
    "conv_general_dilated": _conv,
    "convert_element_type": _cast,
    "dot_general": _dot,
    "erfc": lambda graph, eqn, x: graph("Sub", _like(eqn, 1), graph("Erf", x)),
    "gather": _gather,
    "integer_pow": lambda graph, eqn, x: graph("Pow", x, _like(eqn, eqn.params["y"])),
    "log1p": lambda graph, eqn, x: graph("Log", graph("Add", _like(eqn, 1), x)),
    "max": _max,
    "ne": lambda graph, eqn, x, y: graph("Not", graph("Equal", x, y)),
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _window_max,
    "reduce_window_sum": _window_sum,
    "reshape": lambda graph, eqn, x, *_: graph.reshaped(x, eqn.outvars[0].aval.shape),
    "rem": lambda graph, eqn, x, y: graph("Mod", x, y, fmod=1),
    "rev": _reverse,
    "round": _round,
    "rsqrt": lambda graph, eqn, x: graph("Reciprocal", graph("Sqrt", x)),
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": lambda graph, eqn, x: graph("Mul", x, x),
    "squeeze": lambda graph, eqn, x: graph.reshaped(x, eqn.outvars[0].aval.shape),
    "stack": _stack,
    "transpose": lambda graph, eqn, x: graph.permuted(x, eqn.params["permutation"]),
}

# name of a jitted function -> the same, where ONNX has a node for what is several primitives
NAMED: dict[str, Callable[..., Value]] = {
    "max_unpool": _unpool,
    "relu6": lambda graph, eqn, x: graph("Clip", x, _like(eqn, 0), _like(eqn, 6)),
}


def _evaluate(graph: Graph, jaxpr: Any, consts: Sequence[Any], arguments: list[Value]) -> list:
    """Return the values of the jaxpr's outputs."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom):
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands, name = [read(atom) for atom in eqn.invars], eqn.primitive.name
        known = all(isinstance(each, np.ndarray) for each in operands)
        sized = all(isinstance(s, int) for out in eqn.outvars for s in out.aval.shape)
        called = eqn.params.get("name") if name in ("jit", "pjit") else None
        inner = next((eqn.params[key] for key in CALLS if key in eqn.params), None)
        if known and sized:
            results = eqn.primitive.bind(*operands, **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
            results = [np.asarray(each) for each in results]
        elif called in NAMED:
            results = [NAMED[called](graph, eqn, *operands)]
        elif inner is not None:
            closed = hasattr(inner, "consts")
            inner_consts = [np.asarray(each) for each in inner.consts] if closed else []
            results = _evaluate(graph, inner.jaxpr if closed else inner, inner_consts, operands)
        elif name in SEVERAL:
            results = SEVERAL[name](graph, eqn, *operands)
            results = results if isinstance(results, list) else [results]
        elif name in SAME:
            results = [graph(SAME[name], *operands)]
        else:
            raise UsageError(f"{name} has no ONNX form here; export it as stablehlo")
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def write(
    program: Program,
    path: Path,
    title: str = "cnn_jax",
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the program as an ONNX model, its free size free.

    Inputs and outputs have the program's names and layouts. Of weights beyond LARGEST bytes, more
    than a file of the format holds, all but the smallest lie beside it, in the file whose name has
    .data behind it.

    Args:
      metadata: what else the file says, by name.

    Raises:
      UsageError: an operation that has no ONNX form.
    """
    import onnx  # an extra
    from onnx import helper, numpy_helper

    arrays = dict(zip(program.inputs, symbolic(program.inputs), strict=True))
    with ops.portable():
        closed, found = jax.make_jaxpr(program.function, return_shape=True)(*arrays.values())
    sized = next(name for name, array in arrays.items() if _is_symbolic(array.shape[0]))
    graph = Graph(helper, numpy_helper, arrays[sized].shape[0])
    graph("Shape", sized, start=0, end=1)
    graph.nodes[-1].output[0] = str(graph.free)
    consts = [np.asarray(each) for each in closed.consts]
    results = _evaluate(graph, closed.jaxpr, consts, list(arrays))
    for name, value in zip(sorted(found), results, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.name(value)], [name]))

    def described(name: str, aval: Any) -> Any:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
        form = [size if isinstance(size, int) else str(size) for size in aval.shape]
        return helper.make_tensor_value_info(name, dtype, form)

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            title,
            [described(*each) for each in arrays.items()],
            [described(name, found[name]) for name in sorted(found)],
        ),
        producer_name="cnn_jax",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
    )
    helper.set_model_props(model, dict(metadata))
    # one by one into the model itself, of which a copy would be one of all weights
    constants, initializers = graph.constants.values(), model.graph.initializer
    if sum(array.nbytes for _, array in constants) > LARGEST:
        with data_file(path).open("wb") as file:
            initializers.extend(_initializer(*each, file) for each in constants)
    else:
        initializers.extend(_initializer(*each) for each in constants)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)


def data_file(path: Path) -> Path:
    """Return where weights lie that are too many for the ONNX file at the path."""
    return path.with_name(f"{path.name}.data")


def _initializer(name: str, array: np.ndarray, beside: BinaryIO | None = None) -> Any:
    """Return the constant as ONNX has it; with a file beside, a large one is appended to that."""
    from onnx import TensorProto, helper, numpy_helper

    array = np.ascontiguousarray(array).reshape(np.shape(array))
    if beside is None or array.nbytes <= SMALL:
        return numpy_helper.from_array(array, name)
    place = {"location": Path(beside.name).name, "offset": beside.tell(), "length": array.nbytes}
    beside.write(array.data)
    return TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
        external_data=[{"key": key, "value": str(value)} for key, value in place.items()],
    )
