"""One equation of a program, taken out of it."""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.programs import jaxpr_equations


def test_alone_an_equation_computes_what_it_did():
    x = jnp.arange(3.0)
    equation = jax.make_jaxpr(lambda x: 2 * x + 1)(x).jaxpr.eqns[0]  # the product
    (out,) = jaxpr_equations.evaluate(equation, [2.0, x])
    np.testing.assert_array_equal(out, [0, 2, 4])
    assert len(jaxpr_equations.alone(equation).jaxpr.invars) == 1  # two is a literal


def test_the_default_form_is_that_of_the_platforms_without_a_name():
    def twice_or_half(x):
        return jax.lax.platform_dependent(x, tpu=lambda x: 2 * x, default=lambda x: x / 2)

    def choose(x):
        return jax.lax.cond(x > 0, lambda x: 2 * x, lambda x: x / 2, x)

    programs = [jax.make_jaxpr(function)(jnp.float32(3)) for function in (twice_or_half, choose)]
    (chosen,), (branches,) = (
        [each for each in program.jaxpr.eqns if each.primitive.name == "cond"]
        for program in programs
    )
    form = jaxpr_equations.default_form(chosen)
    assert [each.primitive.name for each in form.jaxpr.eqns] == ["div"]
    assert jaxpr_equations.default_form(branches) is None
