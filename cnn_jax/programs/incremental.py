"""Incremental inference: of a network's values, only those that a patch of the image changes.

Nakandala, Kumar & Papakonstantinou 2019, "Incremental and approximate inference for faster
occlusion-based deep CNN explanations", section 3. The plain image's values are computed once. For
each place of the patch a layer computes the window that the patch reaches, between plain values,
until the window is most of the map; from there on it computes the whole map. Nothing is
approximated, and any function of images will do: its operations are read, and one that is not
known to keep places apart, as a mean over all pixels, computes the whole.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from cnn_jax import ops
from cnn_jax.programs import jaxpr_equations

# The share of a map from which on its window takes as long.
MOST = 0.7


class Grid(NamedTuple):
    """The places of the patch: its first rows and columns, and its size in rows and columns."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    size: tuple[int, int]


Firsts = Sequence[np.ndarray]  # of a window, its first row by the patch's, and its first column


class _Local(NamedTuple):
    """A value [1, h, w, ...] that is the plain image's but in a window."""

    plain: Any  # the plain image's value, or its shape where that is kept
    window: Array  # [1, rows, columns, ...]; what lies outside of the map means nothing
    first: Firsts

    @property
    def sizes(self) -> tuple[int, int]:
        return self.window.shape[1:3]


class _Changed(NamedTuple):
    """A value that may differ from the plain image's anywhere."""

    value: Array


class _NotLocal(Exception):
    """An operation's window is no window, or most of the map."""


class _Reader:
    """Computes a function for one place of the patch, equation by equation."""

    def __init__(self, row: Array, column: Array, kept: Sequence[Array] | None = None):
        self.place = row, column
        self.kept = kept  # the plain values that are needed, in order; None: they are computed
        self.needed: list[tuple[Any, Array]] = []

    # --- windows ---------------------------------------------------------------------------------

    def plain(self, x: _Local) -> Array:
        """Return the plain value."""
        for known, value in self.needed:
            if known is x.plain:
                return value
        value = x.plain if self.kept is None else self.kept[len(self.needed)]
        self.needed.append((x.plain, value))
        return value

    def start(self, first: Firsts, ndim: int, margins: Sequence[tuple[int, int]]) -> list[Array]:
        """Return where this place's window starts in an array with margins."""
        at = [
            jnp.asarray(table)[index] if (table != table[0]).any() else jnp.asarray(table[0])
            for table, index in zip(first, self.place, strict=True)
        ]
        zero = jnp.zeros_like(at[0])
        return [
            zero,
            *(a + low for a, (low, _) in zip(at, margins, strict=True)),
            *[zero] * (ndim - 3),
        ]

    def cut(self, x: Array, first: Firsts, sizes: Sequence[int], fill: Any) -> Array:
        """Return a window of an array, filled up outside of it."""
        margins = _margins(first, sizes, x.shape[1:3])
        x = lax.pad(x, jnp.asarray(fill, x.dtype), _padding(margins, x.ndim))
        return lax.dynamic_slice(
            x, self.start(first, x.ndim, margins), (x.shape[0], *sizes, *x.shape[3:])
        )

    def paste(self, x: Array, onto: Array, first: Firsts) -> Array:
        """Put a window into an array; what lies outside is left out."""
        margins = _margins(first, x.shape[1:3], onto.shape[1:3])
        padded = lax.pad(onto, jnp.zeros((), onto.dtype), _padding(margins, onto.ndim))
        padded = lax.dynamic_update_slice(padded, x, self.start(first, x.ndim, margins))
        return lax.pad(padded, jnp.zeros((), onto.dtype), _padding(-np.array(margins), onto.ndim))

    def around(self, x: _Local, first: Firsts, sizes: Sequence[int], fill: Any = 0) -> Array:
        """Return another window of a value, filled up outside of the map."""
        inner, extents = x.window, x.plain.shape[1:3]
        start = self.start(x.first, 3, [(0, 0), (0, 0)])
        for axis, (low, high) in enumerate(_margins(x.first, x.sizes, extents), 1):
            if low or high:
                where = start[axis] + jnp.arange(inner.shape[axis])
                inside = (where >= 0) & (where < x.plain.shape[axis])
                inside = inside.reshape(-1, *[1] * (inner.ndim - axis - 1))
                inner = jnp.where(inside, inner, jnp.asarray(fill, inner.dtype))
        offsets = [ours - new for ours, new in zip(x.first, first, strict=True)]
        if tuple(sizes) == x.sizes and not any(offset.any() for offset in offsets):
            return inner
        return self.paste(inner, self.cut(self.plain(x), first, sizes, fill), offsets)

    def whole(self, x: Any) -> Any:
        """Return all of a value."""
        if isinstance(x, _Changed):
            return x.value
        return self.paste(x.window, self.plain(x), x.first) if isinstance(x, _Local) else x

    # --- equations -------------------------------------------------------------------------------

    def read(self, jaxpr: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        """Return the outputs of a program of these arguments."""
        known = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
        known.update(zip(jaxpr.jaxpr.invars, arguments, strict=True))

        def value(atom):
            return atom.val if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.jaxpr.eqns:
            values = [value(atom) for atom in equation.invars]
            known.update(zip(equation.outvars, self.outputs(equation, values), strict=True))
        return [value(atom) for atom in jaxpr.jaxpr.outvars]

    def outputs(self, equation: JaxprEqn, values: list[Any]) -> list[Any]:
        """Return the outputs of an equation, where possible as windows."""
        local = any(isinstance(value, _Local) for value in values)
        if not local and not any(isinstance(value, _Changed) for value in values):
            return jaxpr_equations.evaluate(equation, values)
        body = _body(equation)
        if body is not None:
            return self.read(body, values)
        needed = len(self.needed)
        try:
            return self.local(equation, values)
        except _NotLocal:
            del self.needed[needed:]
            whole = list(map(self.whole, values))
            dense = _dense_convolution(equation)
            if dense is None:
                found = jaxpr_equations.evaluate(equation, whole)
            else:
                found = jaxpr_as_fun(dense)(*whole[1:])
            return [_Changed(out) for out in found]

    def local(self, equation: JaxprEqn, values: list[Any]) -> list[_Local]:
        """Return the windows of an equation's outputs.

        Raises:
          _NotLocal: they are none, or too large.
        """
        if any(isinstance(value, _Changed) for value in values):
            raise _NotLocal
        form = jaxpr_equations.default_form(equation)
        if form is not None:
            # The windows are computed by it, all else by the platform's own.
            found = self.read(form, values[1:])
            if not all(isinstance(each, _Local) for each in found):
                raise _NotLocal
            windows = [(each.window, each.first) for each in found]
        elif equation.primitive.name in _RULES:
            windows = _RULES[equation.primitive.name](self, equation, *values)
        else:
            raise _NotLocal
        return [
            _Local(plain, *each)
            for plain, each in zip(self.plain_outputs(equation, values), windows, strict=True)
        ]

    def plain_outputs(self, equation: JaxprEqn, values: list[Any]) -> list[Any]:
        if self.kept is not None:
            return [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.outvars]
        plain = [v.plain if isinstance(v, _Local) else v for v in values]
        return jaxpr_equations.evaluate(equation, plain)


def _margins(first: Firsts, sizes: Sequence[int], extents: Sequence[int]) -> list[tuple[int, int]]:
    """How far windows reach out of an array, before and after it."""
    return [
        (max(0, -int(start.min())), max(0, int(start.max()) + size - extent))
        for start, size, extent in zip(first, sizes, extents, strict=True)
    ]


def _padding(margins: Sequence[Sequence[int]], ndim: int) -> list[tuple[int, int, int]]:
    return [
        (0, 0, 0),
        *((int(low), int(high), 0) for low, high in margins),
        *[(0, 0, 0)] * (ndim - 3),
    ]


def _dense_convolution(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Return the default form of a dense convolution that has others.

    A CPU's form for few pixels gains nothing where each is there for many places of the patch.
    """
    form = jaxpr_equations.default_form(equation)
    dense = (
        [each.params.get("feature_group_count") == 1 for each in form.jaxpr.eqns] if form else []
    )
    return form if dense == [True] else None


_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "remat2")


def _body(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Return the program of a plain call."""
    if equation.primitive.name not in _CALLS:
        return None
    body = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return ClosedJaxpr(body, ()) if isinstance(body, Jaxpr) else body


# --- one rule an operation: the windows of its outputs, and where they start ---------------------


def _check(sizes: Sequence[int], extents: Sequence[int]) -> None:
    if np.prod(sizes) > MOST * np.prod(extents):
        raise _NotLocal


def _map_of(*values: Any) -> tuple[int, int]:
    """The size of the maps that windows belong to."""
    sizes = {value.plain.shape[1:3] for value in values if isinstance(value, _Local)}
    if len(sizes) > 1:
        raise _NotLocal
    return sizes.pop()


def _together(reader: _Reader, values: Sequence[Any]) -> tuple[list[Array], Firsts]:
    """Return the values in one window that holds all of theirs, and where it is."""
    extents = _map_of(*values)
    windows = [value for value in values if isinstance(value, _Local)]
    first, sizes = [], []
    for axis in (0, 1):
        start = np.min([each.first[axis] for each in windows], axis=0)
        end = np.max([each.first[axis] + each.sizes[axis] for each in windows], axis=0)
        first.append(start)
        sizes.append(int((end - start).max()))
    _check(sizes, extents)

    def seen(x):
        if isinstance(x, _Local):
            return reader.around(x, first, sizes)
        shape = np.shape(x)
        if len(shape) < 3 or shape[1:3] == (1, 1):
            return x
        return reader.cut(jnp.broadcast_to(x, (shape[0], *extents, *shape[3:])), first, sizes, 0)

    return [seen(value) for value in values], first


def _elementwise(reader, equation, *values):
    shape = equation.outvars[0].aval.shape
    if any(len(np.shape(v)) not in (0, len(shape)) for v in values if not isinstance(v, _Local)):
        raise _NotLocal
    values, first = _together(reader, values)
    return [(equation.primitive.bind(*values, **equation.params), first)]


def _concatenate(reader, equation, *values):
    if equation.params["dimension"] < 3:
        raise _NotLocal
    values, first = _together(reader, values)
    return [(lax.concatenate(values, equation.params["dimension"]), first)]


def _channelwise(reader, equation, x):
    """Reductions, splits, ... of the axes after the spatial ones."""
    params = equation.params
    axes = params["axes"] if "axes" in params else (params["axis"],)
    if min(axes) < 3:
        raise _NotLocal
    return [(out, x.first) for out in jaxpr_equations.evaluate(equation, [x.window])]


def _broadcast(reader, equation, x, *sizes):
    shape, dimensions = equation.params["shape"], equation.params["broadcast_dimensions"]
    if sizes or dimensions[:3] != (0, 1, 2) or shape[:3] != x.plain.shape[:3]:
        raise _NotLocal
    return [(lax.broadcast_in_dim(x.window, (1, *x.sizes, *shape[3:]), dimensions), x.first)]


def _slice(reader, equation, x):
    params, ndim = equation.params, x.plain.ndim
    strides = params["strides"] or (1,) * ndim
    if set(strides[:3]) != {1} or params["limit_indices"][0] - params["start_indices"][0] != 1:
        raise _NotLocal
    start = (0, 0, 0, *params["start_indices"][3:])
    limit = (*x.window.shape[:3], *params["limit_indices"][3:])
    first = [table - low for table, low in zip(x.first, params["start_indices"][1:3], strict=True)]
    return [(lax.slice(x.window, start, limit, strides), first)]


def _pad(reader, equation, x, fill):
    config = equation.params["padding_config"]
    grows = all(low >= 0 and high >= 0 and between == 0 for low, high, between in config)
    if isinstance(fill, _Local) or not grows or any(config[0]):
        raise _NotLocal
    window = reader.around(x, x.first, x.sizes, fill)  # what was outside is the padding now
    window = lax.pad(window, fill, [*[(0, 0, 0)] * 3, *config[3:]])
    return [(window, [f + low for f, (low, _, _) in zip(x.first, config[1:3], strict=True)])]


def _dot(reader, equation, x, weights, *_):
    contracted, batch = equation.params["dimension_numbers"]
    if not isinstance(x, _Local) or isinstance(weights, _Local):
        raise _NotLocal
    if batch != ((), ()) or min(contracted[0]) < 3:
        raise _NotLocal
    return [(lax.dot_general(x.window, weights, (contracted, batch)), x.first)]


def _reach(x: _Local, sizes, strides, padding, dilations, extents) -> tuple[Any, ...]:
    """Return the first outputs that a window reaches and their number, and what they look at."""
    first, counts, before, seen = [], [], [], []
    for axis in (0, 1):
        span = (sizes[axis] - 1) * dilations[axis]
        low, stride = padding[axis][0], strides[axis]
        start = -((x.first[axis] + low - span) // -stride)  # rounded up
        end = (x.first[axis] + x.sizes[axis] - 1 + low) // stride
        first.append(start)
        counts.append(int((end - start).max()) + 1)
        before.append(start * stride - low)
        seen.append((counts[axis] - 1) * stride + span + 1)
    _check(counts, extents)
    return first, before, seen


_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def _conv(reader, equation, x, kernel):
    params = equation.params
    plain = set(params["lhs_dilation"]) == {1} and params["batch_group_count"] == 1
    if not plain or tuple(params["dimension_numbers"]) != _NHWC or isinstance(kernel, _Local):
        raise _NotLocal
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    extents = equation.outvars[0].aval.shape[1:3]
    first, *at = _reach(x, kernel.shape[:2], strides, params["padding"], dilations, extents)
    window, groups = reader.around(x, *at), params["feature_group_count"]
    if groups == 1:  # ops.conv might take the form for few pixels, as in _dense_convolution
        numbers = ("NHWC", "HWIO", "NHWC")
        out = lax.conv_general_dilated(
            window, kernel, strides, "VALID", rhs_dilation=dilations, dimension_numbers=numbers
        )
    else:
        settings = {"stride": strides, "dilation": dilations, "groups": groups}
        out = ops.conv(window, kernel, padding="valid", **settings)
    return [(out, first)]


def _pool(combine, least):
    def rule(reader, equation, x):
        params = equation.params
        sizes, strides = params["window_dimensions"], params["window_strides"]
        dilations, inner = params["window_dilation"], slice(1, 3)
        beside = [*params["padding"][:1], *params["padding"][3:]]
        if {sizes[0], *sizes[3:], *params["base_dilation"]} != {1} or any(map(any, beside)):
            raise _NotLocal
        extents = equation.outvars[0].aval.shape[1:3]
        settings = (each[inner] for each in (sizes, strides, params["padding"], dilations))
        first, *at = _reach(x, *settings, extents)
        fill = np.asarray(least(x.window.dtype), x.window.dtype)
        window = reader.around(x, *at, fill)
        out = lax.reduce_window(window, fill, combine, sizes, strides, "VALID", None, dilations)
        return [(out, first)]

    return rule


def _lowest(dtype):
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


_ELEMENTWISE = (
    *("add", "sub", "mul", "div", "max", "min", "neg", "abs", "sign", "square", "sqrt", "rsqrt"),
    *("cbrt", "exp", "exp2", "log", "log1p", "expm1", "pow", "integer_pow", "logistic", "tanh"),
    *("erf", "erfc", "erf_inv", "sin", "cos", "select_n", "clamp", "ge", "gt", "le", "lt", "eq"),
    *("ne", "and", "or", "not", "is_finite", "floor", "ceil", "round", "convert_element_type"),
    *("copy", "stop_gradient", "reduce_precision"),
)

_RULES = {
    "conv_general_dilated": _conv,
    "reduce_window_max": _pool(lax.max, _lowest),
    "reduce_window_sum": _pool(lax.add, lambda dtype: 0),
    "dot_general": _dot,
    "concatenate": _concatenate,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "split": _channelwise,
    "pad": _pad,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "cumsum"), _channelwise),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
}


# --- the function for many places ----------------------------------------------------------------


def _read(f, image, fill, grid, row, column, kept=None):
    """Return the function's output for one place, and the reader."""
    reader = _Reader(row, column, kept)
    first = [np.asarray(grid.rows), np.asarray(grid.columns)]
    patch = reader.cut(fill, first, grid.size, 0)
    start = _Local(image, patch, first)
    (output,) = reader.read(jax.make_jaxpr(f)(image), [start])
    return reader.whole(output), reader


@partial(jax.jit, static_argnames="grid")
def plain_values(
    f: Partial, image: Float[Array, "1 h w c"], fill: Float[Array, "1 h w c"], grid: Grid
) -> list[Array]:
    """Return the values of the plain image that `patched` needs."""
    zero = jnp.zeros((), jnp.int32)
    return [value for _, value in _read(f, image, fill, grid, zero, zero)[1].needed]


@partial(jax.jit, static_argnames="grid")
def patched(
    f: Partial,
    image: Float[Array, "1 h w c"],
    fill: Float[Array, "1 h w c"],
    kept: list[Array],
    grid: Grid,
    rows: Int[Array, " n"],
    columns: Int[Array, " n"],
) -> Float[Array, "n ..."]:
    """Return f of the image with the fill in the patch at each of these places of the grid.

    Args:
      f: [n, h, w, c] -> [n, ...], each image's apart from the others'.
      kept: from `plain_values`, of the same function, image, fill and grid.
      rows, columns: indices into the grid's.
    """

    def at(row, column):
        return _read(f, image, fill, grid, row, column, kept)[0][0]

    return jax.vmap(at)(rows, columns)
