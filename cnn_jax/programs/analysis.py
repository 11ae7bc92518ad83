"""What a network costs and sees, layer by layer, from the jaxpr of any JAX function.

    net = analysis.analyse_model("vgg16")
    for layer in net.layers:
        print(layer.path, layer.operation, layer.output, layer.macs, layer.receptive_field)

The function is traced for its shapes; nothing is run and no array made. A layer is a run of
equations under one path of the name stack, which flax.core and Linen both set; without names, a
convolution, matrix product or pooling with what follows it.

Receptive fields are followed pixel by pixel along each axis, through windows, strides, dilation,
padding and every branch. Where a unit's place is lost (a flattened map, a resize by a matrix, a
loop), it counts as seeing all that its operands see.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.core
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.nn.initializers import zeros

from cnn_jax.models.registry import create_model, find
from cnn_jax.programs import equations
from cnn_jax.programs.flops import multiply_adds

WEIGHTED = ("conv", "dense")


class Layer(NamedTuple):
    """One row of the table; counts are those of the whole batch, so of one image if n is 1."""

    path: str  # of the scope
    operation: str  # "conv 3x3/2", "max pool 2x2/2", "batch norm", "add", ...
    kind: str  # "input", "conv", "dense", "pool", "other"
    output: tuple[int, ...]  # shape without the batch
    activations: int  # numbers in the output
    bytes: int  # of the output
    parameters: int  # trained ones that no layer before has used
    weights: int  # those of them that are multiplied with inputs: without biases
    macs: int  # multiply-accumulates
    receptive_field: tuple[int, ...]  # pixels along each axis, those of the padding included
    depth: int  # convolutions and dense layers on the longest way here
    inputs: tuple[int, ...]  # the rows it reads
    located: bool  # its units lie on a grid over the image


class Analysis(NamedTuple):
    """A network's rows and totals."""

    layers: tuple[Layer, ...]  # in order of execution; the first is the input
    parameters: int  # trained
    parameter_bytes: int
    statistics: int  # numbers kept but not trained, such as running means
    macs: int

    @property
    def activations(self) -> int:
        """Numbers in the input and in the outputs of convolutions, dense layers and poolings."""
        return sum(row.activations for row in self.layers if row.kind != "other")

    @property
    def activations_of_weighted(self) -> int:
        """Numbers in the outputs of convolutions and dense layers alone."""
        return sum(row.activations for row in self.layers if row.kind in WEIGHTED)

    @property
    def activations_of_all(self) -> int:
        """The same with every ReLU, normalisation, sum, ... counted too."""
        return sum(row.activations for row in self.layers)

    @property
    def depth(self) -> int:
        """Convolutions and dense layers on the longest path."""
        return max(row.depth for row in self.layers)

    @property
    def weighted_layers(self) -> int:
        """Convolutions and dense layers in all."""
        return sum(row.kind in WEIGHTED for row in self.layers)

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Of the last layer whose units still have a place; may exceed the image."""
        located = [row for row in self.layers if row.located] or self.layers
        return located[-1].receptive_field


def analyse_model(name: str, image_size: int | None = None, **options: Any) -> Analysis:
    """Analyse a registered model on one image, of its native size if none is given.

    Args:
      options: of create_model.

    Raises:
      UsageError: unknown names of models and options.
    """
    model = create_model(name, **options)
    size = image_size or model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, model.channels), np.float32)
    function = partial(find(name).function, num_classes=model.num_classes, **options)
    # one trace tells the variables and what is done with them; random initialisers would take
    # most of its time
    init = flax.core.init(function, flags={"initializer": zeros})
    closed, (_, variables) = jax.make_jaxpr(init, return_shape=True)(jax.random.key(0), images)
    jaxpr, count = closed.jaxpr, len(jax.tree.leaves(variables))
    made, image = jaxpr.outvars[-count:], jaxpr.invars[-1]
    used = [each for each in jaxpr.eqns if not set(made).intersection(each.outvars)]
    outputs = jaxpr.outvars[:-count]
    return _analyse(Jaxpr((), [*made, image], outputs, used), variables, images)


def analyse(function: Callable[[Any, Any], Any], variables: Any, images: Any) -> Analysis:
    """Analyse function(variables, images).

    Args:
      variables: the tree of parameters, arrays or jax.ShapeDtypeStructs; where it is a mapping with
        "params", only what lies there counts as trained.
      images: [n, *spatial, c], an array or a jax.ShapeDtypeStruct.
    """
    return _analyse(jax.make_jaxpr(function)(variables, images), variables, images)


def _analyse(jaxpr: Jaxpr | ClosedJaxpr, variables: Any, images: Any) -> Analysis:
    """Analyse a program whose arguments are the variables and the images."""
    leaves = {
        "/".join(_key(key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]
    }
    mapped = isinstance(variables, Mapping) and "params" in variables
    trained = {
        path: leaf for path, leaf in leaves.items() if not mapped or path.startswith("params/")
    }
    trace = _Trace({path: math.prod(leaf.shape) for path, leaf in trained.items()})
    nothing = (_NOTHING,) * (len(images.shape) - 2)
    arguments = [
        _Value(None, (None,) * len(leaf.shape), nothing, 0, frozenset([path]))
        for path, leaf in leaves.items()
    ]
    grid = tuple(
        _Axis(source, np.arange(size, dtype=float), np.arange(size, dtype=float), 1.0)
        for source, size in enumerate(images.shape[1:-1])
    )
    image = _Value(0, (None, *grid, None), nothing, 0, frozenset())
    trace.start("input", "input", "input", images, image)
    trace.walk(jaxpr, [*arguments, image], "")
    size_of = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    return Analysis(
        layers=tuple(trace.layers()),
        parameters=sum(size_of[path] for path in trained),
        parameter_bytes=sum(size_of[p] * np.dtype(trained[p].dtype).itemsize for p in trained),
        statistics=sum(size_of.values()) - sum(size_of[path] for path in trained),
        macs=sum(row.macs for row in trace.rows),
    )


def seen_pixels(
    function: Callable[[Any], Any], images: Any
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return for the rows, then for the columns, of function(images) which pixels they see.

    Args:
      function: images [n, h, w, c] -> activation [n, rows, columns, channels].

    Returns:
      For each axis the first and the last pixel, [rows] or [columns] each, those of the padding
      included; the whole image where a unit's place is lost.
    """
    jaxpr = jax.make_jaxpr(function)(images)
    trace = _Trace({})
    pixels = [np.arange(size, dtype=float) for size in images.shape[1:3]]
    grid = [_Axis(source, each, each, 1.0) for source, each in enumerate(pixels)]
    image = _Value(0, (None, *grid, None), (_NOTHING,) * 2, 0, frozenset())
    trace.start("input", "input", "input", images, image)
    (output,) = trace.walk(jaxpr, [image], "")
    intervals = []
    for source, units in enumerate(jaxpr.out_avals[0].shape[1:3]):
        axis, (low, high) = output.axes[1 + source], output.whole[source]
        if axis is None or axis.source != source:
            low, high = min(low, 0), max(high, images.shape[1 + source] - 1)
            intervals.append((np.full(units, low, int), np.full(units, high, int)))
        else:
            first, last = np.minimum(axis.first, low), np.maximum(axis.last, high)
            intervals.append((first.astype(int), last.astype(int)))
    return tuple(intervals)


def _key(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))


# --- what a value sees ---------------------------------------------------------------------------

_NOTHING = (math.inf, -math.inf)  # an empty interval


class _Axis(NamedTuple):
    """An axis of a value whose units lie along one axis of the image."""

    source: int  # which spatial axis
    first: np.ndarray  # of each unit the first pixel it sees, by this axis
    last: np.ndarray
    step: float  # pixels between units: how it goes on in the padding


class _Value(NamedTuple):
    row: int | None  # that made it; None: computed from variables alone
    axes: tuple[_Axis | None, ...]
    whole: tuple[tuple[float, float], ...]  # of each spatial axis what every unit sees
    depth: int
    leaves: frozenset[str]  # of the variables, where it is computed from them alone


def _hull(*intervals: tuple[float, float]) -> tuple[float, float]:
    return min(first for first, _ in intervals), max(last for _, last in intervals)


def _collapse(value: _Value, *axes: int) -> _Value:
    """Forget where the units along these axes lie: each sees what all of them see."""
    whole = list(value.whole)
    for axis in (value.axes[index] for index in axes):
        if axis is not None:
            extent = (axis.first.min(), axis.last.max())
            whole[axis.source] = _hull(whole[axis.source], extent)
    kept = tuple(None if i in axes else axis for i, axis in enumerate(value.axes))
    return value._replace(axes=kept, whole=tuple(whole))


def _everything(value: _Value, ndim: int) -> _Value:
    collapsed = _collapse(value, *range(len(value.axes)))
    return collapsed._replace(axes=(None,) * ndim)


def _merge(values: Sequence[_Value]) -> _Value:
    """What a unit sees that is computed from the units of several values at its place."""
    ndim = max(len(value.axes) for value in values)
    values = [v if len(v.axes) == ndim else _everything(v, ndim) for v in values]
    axes = []
    for i in range(ndim):
        units = max(len(v.axes[i].first) if v.axes[i] else 1 for v in values)
        single = [v.axes[i] is not None and len(v.axes[i].first) < units for v in values]
        values = [_collapse(v, i) if s else v for v, s in zip(values, single, strict=True)]
        source = next((v.axes[i].source for v in values if v.axes[i] is not None), None)
        others = [v.axes[i] is not None and v.axes[i].source != source for v in values]
        values = [_collapse(v, i) if o else v for v, o in zip(values, others, strict=True)]
        found = [v.axes[i] for v in values if v.axes[i] is not None]
        first, *more = found or [None]
        for axis in more:
            step = max(first.step, axis.step)
            low, high = np.minimum(first.first, axis.first), np.maximum(first.last, axis.last)
            first = _Axis(source, low, high, step)
        axes.append(first)
    whole = tuple(_hull(*each) for each in zip(*(v.whole for v in values), strict=True))
    return values[0]._replace(
        axes=tuple(axes), whole=whole, depth=max(value.depth for value in values)
    )


def _pad(axis: _Axis | None, before: int, after: int, between: int = 0) -> _Axis | None:
    """Pad, crop where negative; zeros between the units see nothing, those outside go on."""
    if axis is None:
        return None
    _, first, last, step = axis
    if between:
        spread = np.full((2, (len(first) - 1) * (between + 1) + 1), math.inf)
        spread[1] *= -1
        spread[:, :: between + 1] = first, last
        (first, last), step = spread, step / (between + 1)
    first, last = first[max(-before, 0) :], last[max(-before, 0) :]
    if after < 0:
        first, last = first[:after], last[:after]
    left, right = -np.arange(max(before, 0), 0, -1) * step, np.arange(1, max(after, 0) + 1) * step
    if between:  # the unit next to the padding may be a zero
        left, right = left * math.nan, right * math.nan
    first = np.concatenate([first[0] + left, first, first[-1] + right])
    last = np.concatenate([last[0] + left, last, last[-1] + right])
    return axis._replace(
        first=np.nan_to_num(first, nan=math.inf, posinf=math.inf),
        last=np.nan_to_num(last, nan=-math.inf, neginf=-math.inf),
        step=step,
    )


def _slide(axis: _Axis | None, size: int, stride: int, dilation: int) -> _Axis | None:
    """What windows see; the axis is padded already."""
    if axis is None:
        return None
    extent = (size - 1) * dilation + 1
    outputs = (len(axis.first) - extent) // stride + 1
    taps = [
        slice(t * dilation, t * dilation + (outputs - 1) * stride + 1, stride) for t in range(size)
    ]
    return axis._replace(
        first=np.min([axis.first[tap] for tap in taps], axis=0),
        last=np.max([axis.last[tap] for tap in taps], axis=0),
        step=axis.step * stride,
    )


def _receptive_field(value: _Value) -> tuple[int, ...]:
    """Return the most that any unit sees along each axis of the image, in pixels."""
    sizes = []
    for source, (low, high) in enumerate(value.whole):
        size = high - low + 1
        for axis in value.axes:
            if axis is not None and axis.source == source:
                seen = np.maximum(axis.last, high) - np.minimum(axis.first, low)
                size = np.max(seen) + 1
        sizes.append(int(size) if math.isfinite(size) else 0)
    return tuple(sizes)


# --- one rule an operation -----------------------------------------------------------------------


def _conv(equation, image, kernel):
    params = equation.params
    lhs, rhs, out = params["dimension_numbers"]
    axes: list[_Axis | None] = [None] * len(out)
    for i, (source, target) in enumerate(zip(lhs[2:], out[2:], strict=True)):
        padded = _pad(image.axes[source], *params["padding"][i], params["lhs_dilation"][i] - 1)
        size = equation.invars[1].aval.shape[rhs[2 + i]]
        axes[target] = _slide(padded, size, params["window_strides"][i], params["rhs_dilation"][i])
    other = _everything(kernel, len(out))
    return _merge([_collapse(image, lhs[0], lhs[1])._replace(axes=tuple(axes)), other])


def _dot(equation, left, right):
    (left_in, right_in), (left_batch, right_batch) = equation.params["dimension_numbers"]
    ndim = len(equation.outvars[0].aval.shape)
    parts = []
    left_free = [i for i in range(len(left.axes)) if i not in (*left_in, *left_batch)]
    right_free = [i for i in range(len(right.axes)) if i not in (*right_in, *right_batch)]
    start = len(left_batch)
    for value, summed, batch, free, offset in (
        (left, left_in, left_batch, left_free, start),
        (right, right_in, right_batch, right_free, start + len(left_free)),
    ):
        value = _collapse(value, *summed)
        axes: list[_Axis | None] = [None] * ndim
        for target, source in enumerate(batch):
            axes[target] = value.axes[source]
        for target, source in enumerate(free, offset):
            axes[target] = value.axes[source]
        parts.append(value._replace(axes=tuple(axes)))
    return _merge(parts)


def _reduce_window(equation, value, *initial):
    params = equation.params
    axes = []
    for i, axis in enumerate(value.axes):
        padded = _pad(axis, *params["padding"][i], params["base_dilation"][i] - 1)
        window, stride = params["window_dimensions"][i], params["window_strides"][i]
        axes.append(_slide(padded, window, stride, params["window_dilation"][i]))
    return value._replace(axes=tuple(axes))


def _reduce(equation, value, *initial):
    reduced = equation.params["axes"]
    value = _collapse(value, *reduced)
    return value._replace(axes=tuple(a for i, a in enumerate(value.axes) if i not in reduced))


def _squeeze(equation, value):
    gone = equation.params["dimensions"]
    value = _collapse(value, *gone)
    return value._replace(axes=tuple(a for i, a in enumerate(value.axes) if i not in gone))


def _broadcast(equation, value, *sizes):
    old, new = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    axes: list[_Axis | None] = [None] * len(new)
    for source, target in enumerate(equation.params["broadcast_dimensions"]):
        if old[source] == new[target]:
            axes[target] = value.axes[source]
        else:
            value = _collapse(value, source)
    return value._replace(axes=tuple(axes))


def _reshape(equation, value, *sizes):
    """An axis stays where as many entries lie before it and along it as before."""
    old, new = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    place = {(math.prod(old[:i]), n): i for i, n in enumerate(old) if n > 1}
    kept = [place.get((math.prod(new[:j]), n)) for j, n in enumerate(new)]
    lost = [i for i in range(len(old)) if i not in kept]
    value = _collapse(value, *lost)
    return value._replace(axes=tuple(None if i is None else value.axes[i] for i in kept))


def _transpose(equation, value):
    return value._replace(axes=tuple(value.axes[i] for i in equation.params["permutation"]))


def _cut(value: _Value, cuts: Iterable[slice]) -> _Value:
    axes = tuple(
        axis and axis._replace(first=axis.first[c], last=axis.last[c], step=axis.step * c.step)
        for axis, c in zip(value.axes, cuts, strict=True)
    )
    return value._replace(axes=axes)


def _slice(equation, value):
    params = equation.params
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    return _cut(value, map(slice, starts, limits, strides))


def _split(equation, value):
    ends = np.cumsum(equation.params["sizes"])
    cuts = [slice(None, None, 1)] * len(value.axes)
    parts = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        cuts[equation.params["axis"]] = slice(start, end, 1)
        parts.append(_cut(value, cuts))
    return parts


def _padded(equation, value, filler):
    config = equation.params["padding_config"]
    axes = tuple(_pad(a, *each) for a, each in zip(value.axes, config, strict=True))
    return value._replace(axes=axes)


def _reverse(equation, value):
    axes = list(value.axes)
    for i in equation.params["dimensions"]:
        if axes[i] is not None:
            a = axes[i]
            axes[i] = _Axis(a.source, a.first[::-1], a.last[::-1], -a.step)
    return value._replace(axes=tuple(axes))


def _concatenate(equation, *values):
    along = equation.params["dimension"]
    pieces = [value.axes[along] for value in values]
    if any(p is None or p.source != getattr(pieces[0], "source", None) for p in pieces):
        return _merge([_collapse(value, along) for value in values])
    joined = pieces[0]._replace(
        first=np.concatenate([piece.first for piece in pieces]),
        last=np.concatenate([piece.last for piece in pieces]),
    )

    def without(value):
        return tuple(None if i == along else axis for i, axis in enumerate(value.axes))

    merged = _merge([value._replace(axes=without(value)) for value in values])
    axes = tuple(joined if i == along else axis for i, axis in enumerate(merged.axes))
    return merged._replace(axes=axes)


def _max_unpool(equation, values, indices):
    """Of windows side by side: a pixel sees what its own window's maximum saw."""
    axes = []
    for axis, new in zip(values.axes, equation.outvars[0].aval.shape, strict=True):
        if axis is not None:
            old = len(axis.first)
            window = np.minimum(np.arange(new) // (new // old), old - 1)
            first, last = axis.first[window], axis.last[window]
            axis = axis._replace(first=first, last=last, step=axis.step * old / new)
        axes.append(axis)
    return _merge([values, indices])._replace(axes=tuple(axes))


_RULES = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window": _reduce_window,
    "reduce_window_max": _reduce_window,
    "reduce_window_min": _reduce_window,
    "reduce_window_sum": _reduce_window,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_prod": _reduce,
    "reduce_and": _reduce,
    "reduce_or": _reduce,
    "argmax": _reduce,
    "argmin": _reduce,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "split": _split,
    "pad": _padded,
    "rev": _reverse,
    "concatenate": _concatenate,
    "max_unpool": _max_unpool,  # a jitted function
}
# shapes stay, places do not
_ANYWHERE = {
    *("sort", "fft", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "gather", "scan"),
    *("while", "cond", "scatter", "scatter-add", "dynamic_slice", "dynamic_update_slice"),
}
# moving and renaming numbers is no layer
_LAYOUT = {
    *("squeeze", "broadcast_in_dim", "reshape", "transpose", "slice", "split", "pad", "rev"),
    *("copy", "copy_p", "convert_element_type", "stop_gradient", "optimization_barrier"),
}


def _spreads(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether an elementwise operation takes an operand of this shape to that result."""
    return not old or (
        len(old) == len(new) and all(o in (1, n) for o, n in zip(old, new, strict=True))
    )


def _name(equation: JaxprEqn) -> str:
    """Return the name of the primitive, or of a jitted function that has a rule of its own."""
    function = equation.params.get("name")
    return function if function in _RULES else equation.primitive.name


def _apply_rule(equation: JaxprEqn, values: Sequence[_Value]) -> list[_Value]:
    """Return what each output sees."""
    name, outputs = _name(equation), equation.outvars
    if name in _RULES:
        result = _RULES[name](equation, *values)
        return result if isinstance(result, list) else [result]
    shape = outputs[0].aval.shape
    if (
        all(_spreads(v.aval.shape, shape) for v in equation.invars)
        and name not in _ANYWHERE
        and len(outputs) == 1
    ):
        return [_merge(values)]
    every = _merge([_everything(value, 0) for value in values])
    return [every._replace(axes=(None,) * len(out.aval.shape)) for out in outputs]


# --- rows ----------------------------------------------------------------------------------------

_ACTIVATIONS = {
    *("relu", "relu6", "silu", "gelu", "hard_silu", "hard_sigmoid", "hard_tanh", "elu", "selu"),
    *("leaky_relu", "softplus", "softmax", "log_softmax", "celu", "glu", "mish"),
}
_MERGES = {"add": "add", "mul": "multiply", "sub": "subtract", "concatenate": "concatenate"}


class _Row:
    """A layer while its equations are read."""

    def __init__(self, path: str, kind: str = "other", operation: str = ""):
        self.path, self.kind, self.operation = path, kind, operation
        self.primitives: list[str] = []
        self.functions: list[str] = []  # jitted ones, such as relu
        self.leaves: set[str] = set()
        self.inputs: dict[int, None] = {}
        self.merge = ""
        self.macs = self.parameters = self.weights = 0
        self.value: _Value | None = None
        self.aval: Any = None


class _Trace:
    """Reads a jaxpr, equation by equation, into rows."""

    def __init__(self, sizes: Mapping[str, int]):
        self.sizes = sizes  # of the trained leaves
        self.used: set[str] = set()
        self.rows: list[_Row] = []

    def start(self, path, kind="other", operation="", aval=None, value=None) -> _Row:
        row = _Row(path, kind, operation)
        row.aval, row.value = aval, value
        self.rows.append(row)
        return row

    def walk(
        self,
        jaxpr: Jaxpr | ClosedJaxpr,
        arguments: Sequence[_Value],
        prefix: str,
        function: str = "",
    ) -> list[_Value]:
        """Follow the arguments through the jaxpr and return its outputs' values."""
        if isinstance(jaxpr, ClosedJaxpr):
            jaxpr = jaxpr.jaxpr
        known = dict(zip(jaxpr.invars, arguments, strict=True))
        spatial = (_NOTHING,) * len(self.rows[0].value.whole)

        def read(atom):
            if not isinstance(atom, Literal) and atom in known:
                return known[atom]
            ndim = len(atom.aval.shape)  # a constant
            return _Value(None, (None,) * ndim, spatial, 0, frozenset())

        for equation in jaxpr.eqns:
            if not equation.invars:  # its outputs are constants
                continue
            values = [read(atom) for atom in equation.invars]
            stack = str(equation.source_info.name_stack)
            path = "/".join(part for part in (prefix, stack) if part)
            inner = _inlined(equation)
            if inner is not None:
                body, skipped = inner
                name = equation.params.get("name", "")
                outputs = self.walk(body, values[skipped:], path, function or name)
            else:
                outputs = self._read(equation, values, path, function)
            known.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _read(self, equation, values, path, function) -> list[_Value]:
        """Follow one equation, and put it into a row if it computes with the image."""
        seen = [value for value in values if value.row is not None]
        outputs = _apply_rule(equation, values)
        if not seen:
            leaves = frozenset().union(*(value.leaves for value in values))
            return [output._replace(row=None, leaves=leaves) for output in outputs]
        sources = dict.fromkeys(value.row for value in seen)
        if _is_layout(equation, values):
            return [output._replace(row=seen[0].row, leaves=frozenset()) for output in outputs]
        name = equation.primitive.name
        kind, operation = _describe(equation, values)
        current = len(self.rows) - 1
        apart = current not in sources
        if (
            path != self.rows[-1].path
            or (kind != "other" and self.rows[-1].kind != "other")
            or (apart and (len(sources) > 1 or not path))
            or self.rows[-1].kind == "input"
        ):
            self.start(path)
            current += 1
        row = self.rows[-1]
        if kind != "other" or (operation and not row.operation):
            row.kind, row.operation = kind, operation
        if len(sources) > 1 and current not in sources and not row.merge:
            row.merge = _MERGES.get(name, "")
        row.primitives.append(name)
        row.functions.append(function)
        row.inputs.update((source, None) for source in sources if source != current)
        if not _interpolates(equation, values):
            row.macs += int(multiply_adds(equations.alone(equation)))
        for value in values:
            if value.row is None:
                row.leaves |= value.leaves
                new = [leaf for leaf in value.leaves if leaf in self.sizes] if value.leaves else []
                for leaf in new:
                    if leaf not in self.used:
                        self.used.add(leaf)
                        row.parameters += self.sizes[leaf]
                        row.weights += self.sizes[leaf] if kind in WEIGHTED else 0
        deeper = kind in WEIGHTED and any(value.leaves for value in values if value.row is None)
        outputs = [
            output._replace(
                row=current,
                leaves=frozenset(),
                depth=max(value.depth for value in seen) + deeper,
            )
            for output in outputs
        ]
        row.value, row.aval = outputs[0], equation.outvars[0].aval
        return outputs

    def layers(self) -> Iterable[Layer]:
        for row in self.rows:
            count = math.prod(row.aval.shape)
            normalizes = "rsqrt" in row.primitives  # by the moments of its own input
            yield Layer(
                path=row.path,
                operation=_operation(row),
                kind="other" if normalizes and row.kind == "pool" else row.kind,
                output=tuple(row.aval.shape[1:]),
                activations=count,
                bytes=count * np.dtype(row.aval.dtype).itemsize,
                parameters=row.parameters,
                weights=row.weights,
                macs=row.macs,
                receptive_field=_receptive_field(row.value),
                depth=row.value.depth,
                inputs=tuple(row.inputs),
                located=any(a is not None and len(a.first) > 1 for a in row.value.axes),
            )


def _interpolates(equation: JaxprEqn, values: Sequence[_Value]) -> bool:
    """Whether a matrix that is neither trained nor computed from the image is multiplied with it.

    So images are resized here; published numbers leave that out.
    """
    constant = any(value.row is None and not value.leaves for value in values)
    return constant and equation.primitive.name == "dot_general"


def _inlined(equation: JaxprEqn) -> tuple[Jaxpr | ClosedJaxpr, int] | None:
    """Return the body of a plain call, and how many operands come before its arguments."""
    params = equation.params
    if _name(equation) in _RULES:
        return None
    if equation.primitive.name == "cond":
        default = equations.default_form(equation)
        return None if default is None else (default, 1)
    if equation.primitive.name in ("scan", "while"):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if isinstance(params.get(key), (Jaxpr, ClosedJaxpr)):
            return params[key], 0
    return None


def _is_layout(equation: JaxprEqn, values: Sequence[_Value]) -> bool:
    name, shape = equation.primitive.name, equation.invars[0].aval.shape
    if name in _LAYOUT:
        return True
    if name.startswith("reduce_") and "axes" in equation.params:
        return all(shape[axis] == 1 for axis in equation.params["axes"])
    if name == "concatenate":  # of the parts of one map, or of different features?
        return values[0].axes[equation.params["dimension"]] is not None or (
            len({value.row for value in values}) == 1
        )
    if name in ("mul", "div"):
        last = equation.invars[1]
        return isinstance(last, Literal) and np.ndim(last.val) == 0 and last.val == 1
    return False


def _numbers(values: Sequence[int], separator: str = "x") -> str:
    return separator.join(map(str, values))


def _window(sizes: Sequence[int], strides: Sequence[int]) -> str:
    stride = strides[0] if len(set(strides)) == 1 else _numbers(strides)
    return _numbers(sizes) + ("" if stride == 1 else f"/{stride}")


def _describe(equation: JaxprEqn, values: Sequence[_Value]) -> tuple[str, str]:
    """Return the kind of layer that this equation makes of its row, and its operation."""
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        if values[0].row is not None and values[1].row is not None:
            return "other", "convolve by features"
        numbers, shape = params["dimension_numbers"], equation.invars[1].aval.shape
        window = _window([shape[i] for i in numbers.rhs_spec[2:]], params["window_strides"])
        transposed = "transposed " if any(d > 1 for d in params["lhs_dilation"]) else ""
        text = f"{transposed}conv {window}"
        groups = params["feature_group_count"]
        if groups > 1:
            depthwise = shape[numbers.rhs_spec[1]] == 1
            text = f"depthwise {text}" if depthwise else f"{text}, {groups} groups"
        if any(d > 1 for d in params["rhs_dilation"]):
            text += f", dilation {_numbers(sorted(set(params['rhs_dilation'])))}"
        return "conv", text
    if name == "dot_general":
        if any(value.row is None and value.leaves for value in values):
            return "dense", "dense"
        return "other", "matrix product"
    if _name(equation) == "max_unpool":
        return "other", "max unpool"
    if name.startswith("reduce_window"):
        way = {"reduce_window_max": "max", "reduce_window_sum": "avg"}.get(name, name[14:])
        axes = [i for i, axis in enumerate(values[0].axes) if axis is not None]
        sizes, strides = params["window_dimensions"], params["window_strides"]
        return "pool", f"{way} pool {_window([sizes[i] for i in axes], [strides[i] for i in axes])}"
    if name in ("reduce_sum", "reduce_max") and 0 not in params["axes"]:
        axes = [i for i, axis in enumerate(values[0].axes) if axis is not None]
        if set(axes) & set(params["axes"]):
            whole = "global " if set(axes) <= set(params["axes"]) else ""
            return "pool", f"{whole}{'max' if name == 'reduce_max' else 'avg'} pool"
    return "other", ""


def _operation(row: _Row) -> str:
    """Name what the row does, in the field's words where the equations tell."""
    if row.kind in (*WEIGHTED, "input"):
        return row.operation
    if any(leaf.startswith("batch_stats/") for leaf in row.leaves):
        return "batch norm"
    if "rsqrt" in row.primitives:
        return "layer norm"
    if row.operation:
        return row.operation
    for function in row.functions:
        if function in _ACTIVATIONS:
            return "relu6" if function == "relu" and "min" in row.primitives else function
    if row.merge:
        return row.merge
    if "logistic" in row.primitives:
        return "silu" if "mul" in row.primitives else "sigmoid"
    if set(row.primitives) == {"max"}:
        return "relu"
    if len(set(row.primitives)) == 1:
        return _MERGES.get(row.primitives[0], row.primitives[0])
    return re.sub(r"\d+$", "", row.path.rpartition("/")[2]) or row.primitives[0]
