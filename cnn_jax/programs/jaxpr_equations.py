"""What the readers of a function's program, its jaxpr, ask of one equation."""

from collections.abc import Sequence

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jaxtyping import Array


def alone(equation: JaxprEqn) -> ClosedJaxpr:
    """Return the program of this equation alone; its arguments are the operands but literals."""
    variables = [atom for atom in equation.invars if not isinstance(atom, Literal)]
    return ClosedJaxpr(Jaxpr((), variables, equation.outvars, [equation], equation.effects), ())


def evaluate(equation: JaxprEqn, values: Sequence[Array]) -> list[Array]:
    """Return the equation's outputs, given all of its operands, literals too."""
    operands = zip(equation.invars, values, strict=True)
    given = [value for atom, value in operands if not isinstance(atom, Literal)]
    return jaxpr_as_fun(alone(equation))(*given)


def default_form(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Return what jax.lax.platform_dependent does on the platforms that it does not name.

    Its arguments are the equation's operands but the first. None: another operation, or one that
    names every platform.
    """
    platforms = equation.params.get("branches_platforms") or ()
    return equation.params["branches"][platforms.index(None)] if None in platforms else None
