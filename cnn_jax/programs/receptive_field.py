"""Which pixels of an image each unit of a map sees, from the jaxpr of any JAX function.

    rows, columns = receptive_field.seen_pixels(features, images)

The function is traced for its shapes; nothing is run and no array made. Receptive fields are
followed pixel by pixel along each axis, through windows, strides, dilation, padding and every
branch. Where a unit's place is lost (a flattened map, a resize by a matrix, a loop), it counts as
seeing all that its operands see.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from cnn_jax.programs import jaxpr_equations

# --- what a value sees ---------------------------------------------------------------------------

NOTHING = (math.inf, -math.inf)  # an empty interval


class Axis(NamedTuple):
    """An axis of a value whose units lie along one axis of the image."""

    source: int  # which spatial axis
    first: np.ndarray  # of each unit the first pixel it sees, by this axis
    last: np.ndarray
    step: float  # pixels between units: how it goes on in the padding


class Value(NamedTuple):
    """What the units of a value see, and what the layer table follows beside that."""

    row: int | None  # that made it; None: computed from variables alone
    axes: tuple[Axis | None, ...]
    whole: tuple[tuple[float, float], ...]  # of each spatial axis what every unit sees
    depth: int
    leaves: frozenset[str]  # of the variables, where it is computed from them alone


Reader = Callable[[JaxprEqn, list[Value], str, str], list[Value]]


def of_images(shape: Sequence[int]) -> Value:
    """Return the value of images [n, *spatial, c]: each pixel sees itself."""
    pixels = [np.arange(size, dtype=float) for size in shape[1:-1]]
    grid = [Axis(source, each, each, 1.0) for source, each in enumerate(pixels)]
    return Value(0, (None, *grid, None), (NOTHING,) * len(grid), 0, frozenset())


def of_nothing(ndim: int, images: Value) -> Value:
    """Return the value of an array that sees none of the images."""
    return Value(None, (None,) * ndim, (NOTHING,) * len(images.whole), 0, frozenset())


def _hull(*intervals: tuple[float, float]) -> tuple[float, float]:
    return min(first for first, _ in intervals), max(last for _, last in intervals)


def _collapse(value: Value, *axes: int) -> Value:
    """Forget where the units along these axes lie: each sees what all of them see."""
    whole = list(value.whole)
    for axis in (value.axes[index] for index in axes):
        if axis is not None:
            seen = (axis.first.min(), axis.last.max())
            whole[axis.source] = _hull(whole[axis.source], seen)
    kept = tuple(None if i in axes else axis for i, axis in enumerate(value.axes))
    return value._replace(axes=kept, whole=tuple(whole))


def _everything(value: Value, ndim: int) -> Value:
    collapsed = _collapse(value, *range(len(value.axes)))
    return collapsed._replace(axes=(None,) * ndim)


def _merge(values: Sequence[Value]) -> Value:
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
            first = Axis(source, low, high, step)
        axes.append(first)
    whole = tuple(_hull(*each) for each in zip(*(v.whole for v in values), strict=True))
    return values[0]._replace(
        axes=tuple(axes), whole=whole, depth=max(value.depth for value in values)
    )


def _pad(axis: Axis | None, before: int, after: int, between: int = 0) -> Axis | None:
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


def _slide(axis: Axis | None, size: int, stride: int, dilation: int) -> Axis | None:
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


def extent(value: Value) -> tuple[int, ...]:
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
    axes: list[Axis | None] = [None] * len(out)
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
        axes: list[Axis | None] = [None] * ndim
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
    axes: list[Axis | None] = [None] * len(new)
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


def _cut(value: Value, cuts: Iterable[slice]) -> Value:
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
            axes[i] = Axis(a.source, a.first[::-1], a.last[::-1], -a.step)
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


def _spreads(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether an elementwise operation takes an operand of this shape to that result."""
    return not old or (
        len(old) == len(new) and all(o in (1, n) for o, n in zip(old, new, strict=True))
    )


def name_of(equation: JaxprEqn) -> str:
    """Return the name of the primitive, or of a jitted function that has a rule of its own."""
    function = equation.params.get("name")
    return function if function in _RULES else equation.primitive.name


def apply_rule(equation: JaxprEqn, values: Sequence[Value]) -> list[Value]:
    """Return what each output sees."""
    name, outputs = name_of(equation), equation.outvars
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


# --- the walk ------------------------------------------------------------------------------------


def follow(jaxpr: Jaxpr | ClosedJaxpr, arguments: Sequence[Value], read: Reader) -> list[Value]:
    """Return the values of the jaxpr's outputs; the functions that it calls are followed too.

    Args:
      arguments: the last one is that of the images.
      read: (equation, operands' values, scope's path, jitted function's name) -> outputs' values.
    """
    image = arguments[-1]

    def walk(jaxpr, arguments, prefix, function):
        if isinstance(jaxpr, ClosedJaxpr):
            jaxpr = jaxpr.jaxpr
        known = dict(zip(jaxpr.invars, arguments, strict=True))

        def value_of(atom):
            if not isinstance(atom, Literal) and atom in known:
                return known[atom]
            return of_nothing(len(atom.aval.shape), image)  # a constant

        for equation in jaxpr.eqns:
            if not equation.invars:  # its outputs are constants
                continue
            values = [value_of(atom) for atom in equation.invars]
            stack = str(equation.source_info.name_stack)
            path = "/".join(part for part in (prefix, stack) if part)
            inner = _inlined(equation)
            if inner is not None:
                body, skipped = inner
                name = equation.params.get("name", "")
                outputs = walk(body, values[skipped:], path, function or name)
            else:
                outputs = read(equation, values, path, function)
            known.update(zip(equation.outvars, outputs, strict=True))
        return [value_of(atom) for atom in jaxpr.outvars]

    return walk(jaxpr, arguments, "", "")


def _inlined(equation: JaxprEqn) -> tuple[Jaxpr | ClosedJaxpr, int] | None:
    """Return the body of a plain call, and how many operands come before its arguments."""
    params = equation.params
    if name_of(equation) in _RULES:
        return None
    if equation.primitive.name == "cond":
        default = jaxpr_equations.default_form(equation)
        return None if default is None else (default, 1)
    if equation.primitive.name in ("scan", "while"):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if isinstance(params.get(key), (Jaxpr, ClosedJaxpr)):
            return params[key], 0
    return None


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
    (output,) = follow(
        jaxpr, [of_images(images.shape)], lambda equation, values, *_: apply_rule(equation, values)
    )
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
