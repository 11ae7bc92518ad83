"""Counting the multiply-adds of convolutions and matrix products, from the jaxpr.

Counted is what the model asks for, not what a compiler makes of it: of a computation with a form of
its own for some platform, the plain form counts. Elementwise work is left out, as in the published
numbers. Two floating-point operations are one multiply-add.
"""

import math
from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from cnn_jax.programs import jaxpr_equations


def multiply_adds(jaxpr: Jaxpr | ClosedJaxpr) -> float:
    """Return the multiply-adds of one evaluation, on all devices together.

    A scan's body counts as often as it runs, a conditional as its most expensive branch. The result
    is nan where a while loop holds some, as only the data says how often it turns.
    """
    if isinstance(jaxpr, ClosedJaxpr):
        jaxpr = jaxpr.jaxpr
    return sum(map(_of_equation, jaxpr.eqns))


def _of_equation(equation: JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    if name == "dot_general":
        contracted, _ = params["dimension_numbers"][0]
        shape = equation.invars[0].aval.shape
        outputs = math.prod(equation.outvars[0].aval.shape)
        return outputs * math.prod(shape[axis] for axis in contracted)
    default = jaxpr_equations.default_form(equation)
    if default is not None:
        return multiply_adds(default)
    inner = [multiply_adds(each) for each in _jaxprs(params)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "while":
        return math.nan if any(inner) else 0
    return max(inner) if name == "cond" else sum(inner)


def _of_convolution(equation: JaxprEqn) -> int:
    """Every output meets its whole window, padding included, as in the published numbers.

    At stride 1, though, a place of the window meets each value of the input at most once: so a
    convolution's gradient, which is padded and dilated by zeros, costs what the convolution does.
    """
    params, numbers = equation.params, equation.params["dimension_numbers"]
    inputs, kernel = (each.aval.shape for each in equation.invars)
    outputs = equation.outvars[0].aval.shape
    count = outputs[numbers.out_spec[0]] * outputs[numbers.out_spec[1]]
    count *= kernel[numbers.rhs_spec[1]]
    for axis, stride in enumerate(params["window_strides"], start=2):
        places = outputs[numbers.out_spec[axis]]
        if stride == 1:
            places = min(places, inputs[numbers.lhs_spec[axis]])
        count *= places * kernel[numbers.rhs_spec[axis]]
    return count


def _jaxprs(params: dict) -> Iterator[Jaxpr | ClosedJaxpr]:
    for value in params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, (Jaxpr, ClosedJaxpr)):
                yield each
