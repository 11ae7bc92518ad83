"""Another backward rule for every ReLU of a function, however it is written."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.tree_util import Partial
from jaxtyping import Array

from cnn_jax import errors
from cnn_jax.ops.activation import RELU_RULES, relu
from cnn_jax.programs import equations
from cnn_jax.visualize.batching import as_partial

_INLINED = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint")
_LOOPS = {"scan": ("jaxpr",), "while": ("body_jaxpr",), "cond": ("branches",)}
_JAX_NN = (
    ["max"],
    ["max", "min"],
)  # what relu and relu6, with derivatives of their own, consist of
_MOVED = ("broadcast_in_dim", "convert_element_type", "reshape", "copy")  # zeros stay zeros


def with_relu_rule(f: Callable, rule: str | Callable[[Array, Array], Array]) -> Partial:
    """Return f with all its ReLUs differentiated by the rule; its values stay the same.

    Any function will do: its jaxpr is read, and each `jax.nn.relu(x)`, `jnp.maximum(x, 0)`,
    `jnp.where(x > 0, x, 0)`, `x * (x > 0)` and `jnp.clip(x, 0)` in it counts as a ReLU, also the
    one in a ReLU6 and those in loops and branches. What has a `jax.custom_vjp` of its own keeps it.

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
        values = [_Value(leaf) for leaf in jax.tree.leaves(args)]
        outputs = interpreter.run(closed.jaxpr, [_Value(c) for c in closed.consts], values)
        if not interpreter.found:
            raise errors.UsageError(
                "there is no ReLU in this network, so that guided backpropagation and the "
                "deconvnet are the gradient; take another method"
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


class _Interpreter:
    """Runs a jaxpr, counting the ReLUs whose rule it replaces."""

    def __init__(self, rule: str | Callable):
        self.rule = rule
        self.found = 0

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
            return [_Value(relu(rectified, self.rule))]
        if name in _INLINED:
            inner = params.get("jaxpr", params.get("call_jaxpr"))
            return self.run(*_opened(inner), values)
        if name == "custom_jvp_call" and _operations(params["call_jaxpr"]) in _JAX_NN:
            before = self.found
            outputs = self.run(*_opened(params["call_jaxpr"]), values)
            if self.found > before:
                return outputs
        if name in _LOOPS:
            changed = {key: self.rewritten(params[key]) for key in _LOOPS[name]}
            equation = equation.replace(params=params | changed)
        outputs = equations.evaluate(equation, [value.array for value in values])
        return [_Value(outputs[0], *_facts(name, values)), *map(_Value, outputs[1:])]

    def rewritten(self, jaxpr: ClosedJaxpr | tuple[ClosedJaxpr, ...]) -> Any:
        """Return the body of a loop, or the bodies of branches, with the rule in it."""
        if isinstance(jaxpr, tuple):
            return tuple(self.rewritten(each) for each in jaxpr)

        def body(*arrays):
            outputs = self.run(*_opened(jaxpr), [_Value(array) for array in arrays])
            return [output.array for output in outputs]

        return jax.make_jaxpr(body)(*jaxpr.in_avals)


def _opened(jaxpr: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, list[_Value]]:
    if isinstance(jaxpr, ClosedJaxpr):
        return jaxpr.jaxpr, [_Value(constant) for constant in jaxpr.consts]
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
    if name in ("max", "mul"):
        for x, other in (values, values[::-1]):
            if name == "max" and other.zero and not x.zero:
                return x.array
            if name == "mul" and other.positive is not None and other.positive is x.array:
                return x.array
    return None


def _facts(name: str, values: Sequence[_Value]) -> tuple[bool, Any, Any]:
    """Return what is known of an equation's output: the fields of _Value after the first."""
    if name in _MOVED:
        return values[0][1:]
    if name in ("gt", "ge", "lt", "le") and values[0].zero != values[1].zero:
        x = values[0] if values[1].zero else values[1]
        positive = name in ("gt", "ge") if values[1].zero else name in ("lt", "le")
        return (False, x.array, None) if positive else (False, None, x.array)
    return (False, None, None)
