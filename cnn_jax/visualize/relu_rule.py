"""Another backward rule for every ReLU of a function, however it is written."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.tree_util import Partial
from jaxtyping import Array

from cnn_jax import errors
from cnn_jax.ops.activation import RELU_RULES, relu
from cnn_jax.programs import jaxpr_equations
from cnn_jax.runtime.partial import as_partial

_INLINED = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint")
_LOOPS = {"scan": ("jaxpr",), "while": ("body_jaxpr",), "cond": ("branches",)}
_JAX_NN = (
    ["max"],
    ["max", "min"],
)  # what relu and relu6, with derivatives of their own, consist of
_STEPS = ("gt", "ge", "lt", "le", "eq", "ne", "sign")  # flat in their operands, but for jumps
_SCALED = ("neg", "mul", "div")  # by a constant: these have the sign of x or the other one
_CURVED = {"exp", "exp2", "expm1", "log", "log1p", "logistic", "tanh", "erf"}  # as in softplus
_MOVED = ("broadcast_in_dim", "convert_element_type", "reshape", "copy")  # zeros stay zeros


def with_relu_rule(f: Callable, rule: str | Callable[[Array, Array], Array]) -> Partial:
    """Return f with all its ReLUs differentiated by the rule; its values stay the same.

    Any function will do: its jaxpr is read, and each `jax.nn.relu(x)`, `jnp.maximum(x, 0)`,
    `jnp.where(x > 0, x, 0)`, `x * (x > 0)` and `jnp.clip(x, 0)` in it counts as a ReLU, also the
    one in a ReLU6 and those in loops and branches. What has a `jax.custom_vjp` of its own keeps it.
    Other ways to pass or stop a value by its own size, such as `x * (2 * x > 0)` and `jnp.abs(x)`,
    keep their gradient, and a UserWarning counts them.

    Args:
      rule: a name in ops.activation.RELU_RULES, or f(x, g) -> gradient of x.

    Raises:
      UsageError: an unknown rule; on a call, a function without a ReLU, whose gradient no rule
        would change.
    """
    if isinstance(rule, str) and rule not in RELU_RULES:
        raise errors.unknown("ReLU rule", rule, RELU_RULES)
    return Partial(_caller(rule), as_partial(f))


@functools.cache  # the same function for the same rule: what jax.jit compiled is found again
def _caller(rule: str | Callable) -> Callable:
    def call(f: Callable, *args: Any) -> Any:
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
        interpreter = _Interpreter(rule)
        values = [_Value(leaf, varies=True) for leaf in jax.tree.leaves(args)]
        outputs = interpreter.run(closed.jaxpr, [*map(_constant, closed.consts)], values)
        unknown = (
            f"{interpreter.gates} places stop a value by its own size and are not recognised as "
            "ReLUs; write jax.nn.relu(x) where one is meant"
        )
        if not interpreter.found:
            raise errors.UsageError(
                "there is no ReLU in this network, so that guided backpropagation and the "
                "deconvnet are the gradient; take another method"
                + (f" ({unknown})" if interpreter.gates else "")
            )
        if interpreter.gates:
            warnings.warn(
                f"the rule replaces {interpreter.found} ReLUs alone: {unknown}", stacklevel=2
            )
        leaves = [output.array for output in outputs]
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return call


class _Value(NamedTuple):
    """An array and what is known of it."""

    array: Any
    zero: bool = False  # all of it
    positive: Any = None  # this is the mask of where that array is positive
    negative: Any = None  # this is the mask of where that array is not positive
    varies: bool = False  # with the function's arguments
    root: Any = None  # this is a multiple of that array
    jumps_of: tuple = ()  # this varies with the signs or the order of these arrays alone


def _constant(array: Any) -> _Value:
    known = not isinstance(array, jax.core.Tracer)
    return _Value(array, zero=known and not np.any(np.asarray(array)))


class _Interpreter:
    """Runs a jaxpr, counting the ReLUs whose rule it replaces and the gates that it leaves."""

    def __init__(self, rule: str | Callable):
        self.rule = rule
        self.found = 0
        self.gates = 0

    def run(
        self, jaxpr: Jaxpr, constants: Sequence[_Value], arguments: Sequence[_Value]
    ) -> list[_Value]:
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

        def read(atom) -> _Value:
            if isinstance(atom, Literal):
                return _Value(atom.val, zero=bool(np.all(np.asarray(atom.val) == 0)))
            return known[atom]

        for equation in jaxpr.eqns:
            values = [read(atom) for atom in equation.invars]
            known.update(zip(equation.outvars, self.step(equation, values), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def step(self, equation: JaxprEqn, values: list[_Value]) -> list[_Value]:
        """Return the outputs of one equation."""
        name, params = equation.primitive.name, equation.params
        rectified = _rectified(name, values)
        if rectified is not None and rectified.shape == equation.outvars[0].aval.shape:
            self.found += 1
            rectified = relu(rectified, self.rule)
            if name == "clamp":
                rectified = jnp.minimum(rectified, values[2].array)
            return [_Value(rectified, varies=True)]
        if name in _INLINED:
            inner = params.get("jaxpr", params.get("call_jaxpr"))
            return self.run(*_opened(inner), values)
        if name == "custom_jvp_call" and _operations(params["call_jaxpr"]) in _JAX_NN:
            before = self.found
            outputs = self.run(*_opened(params["call_jaxpr"]), values)
            if self.found > before:
                return outputs
        elif name == "custom_jvp_call" and _CURVED.isdisjoint(_operations(params["call_jaxpr"])):
            # it keeps its derivative, which may be a ReLU's
            inner = _Interpreter(self.rule)
            inner.run(*_opened(params["call_jaxpr"]), values)
            self.gates += inner.found + inner.gates
        self.gates += _is_gate(name, values)
        if name in _LOOPS:
            changed = {key: self.rewritten(params[key]) for key in _LOOPS[name]}
            equation = equation.replace(params=params | changed)
        outputs = jaxpr_equations.evaluate(equation, [value.array for value in values])
        varies, root, jumps_of = _variation(name, values)
        first = _Value(outputs[0], *_facts(name, values), varies, root, jumps_of)
        return [first, *(_Value(each, varies=varies) for each in outputs[1:])]

    def rewritten(self, jaxpr: ClosedJaxpr | tuple[ClosedJaxpr, ...]) -> Any:
        """Return the body of a loop, or the bodies of branches, with the rule in it."""
        if isinstance(jaxpr, tuple):
            return tuple(self.rewritten(each) for each in jaxpr)

        def body(*arrays):
            values = [
                _Value(array, varies=jnp.issubdtype(array.dtype, jnp.floating)) for array in arrays
            ]
            outputs = self.run(*_opened(jaxpr), values)
            return [output.array for output in outputs]

        return jax.make_jaxpr(body)(*jaxpr.in_avals)


def _opened(jaxpr: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, list[_Value]]:
    if isinstance(jaxpr, ClosedJaxpr):
        return jaxpr.jaxpr, [*map(_constant, jaxpr.consts)]
    return jaxpr, []


def _operations(jaxpr: Jaxpr | ClosedJaxpr) -> list[str]:
    """Return the names of the primitives, inner functions opened."""
    names = []
    for equation in _opened(jaxpr)[0].eqns:
        inner = equation.params.get("jaxpr") if equation.primitive.name in _INLINED else None
        names += [equation.primitive.name] if inner is None else _operations(inner)
    return names


def _rectified(name: str, values: Sequence[_Value]) -> Any:
    """Return x if this equation computes max(x, 0), else None."""
    if name == "select_n" and len(values) == 3:
        mask, where_false, where_true = values
        if where_false.zero and mask.positive is where_true.array:
            return mask.positive
        if where_true.zero and mask.negative is where_false.array:
            return mask.negative
    if name == "clamp" and values[0].zero:
        return values[1].array
    if name in ("max", "mul"):
        for x, other in (values, values[::-1]):
            if name == "max" and other.zero and not x.zero:
                return x.array
            if name == "mul" and other.positive is not None and other.positive is x.array:
                return x.array
    return None


def _facts(name: str, values: Sequence[_Value]) -> tuple[bool, Any, Any]:
    """Return what an equation's output is known to be: zero, positive and negative of _Value."""
    if name in _MOVED:
        return values[0][1:4]
    if name == "not":
        return (False, values[0].negative, values[0].positive)
    if name in ("gt", "ge", "lt", "le") and values[0].zero != values[1].zero:
        x = values[0] if values[1].zero else values[1]
        positive = name in ("gt", "ge") if values[1].zero else name in ("lt", "le")
        return (False, x.array, None) if positive else (False, None, x.array)
    return (False, None, None)


def _variation(name: str, values: Sequence[_Value]) -> tuple[bool, Any, tuple]:
    """Return how an equation's output varies: varies, root and jumps_of of _Value."""
    varying = [value for value in values if value.varies]
    if not varying:
        return False, None, ()
    smooth = [value for value in varying if not value.jumps_of]
    jumps_of = tuple(array for value in varying for array in value.jumps_of)
    if smooth:
        jumps_of = (*jumps_of, *map(_root, smooth)) if name in _STEPS else ()
    same = len(varying) == 1 and name in (*_MOVED, *_SCALED)
    return True, _root(varying[0]) if same else None, jumps_of


def _root(value: _Value) -> Any:
    return value.array if value.root is None else value.root


def _is_gate(name: str, values: Sequence[_Value]) -> bool:
    """Return whether this equation passes a value or not by its own sign or size."""
    smooth = [value for value in values if value.varies and not value.jumps_of]
    if name == "abs" or (name == "min" and any(value.zero for value in values)):
        return bool(smooth)
    if name == "select_n" and any(value.zero for value in values[1:]):
        mask, passed = values[0], [value for value in values[1:] if not value.zero]
        # where(x > 0, 0, x) is the negative part, of which ELU is made
        if any(x is value.array for value in passed for x in (mask.positive, mask.negative)):
            return False
    elif name == "mul":
        mask = next((value for value in values if value.jumps_of), None)
        if mask is None:
            return False
    else:
        return False
    return any(_root(value) is array for value in smooth for array in mask.jumps_of)
