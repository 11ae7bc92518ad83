"""The flags of an attack, shared by the experiments that run one."""

import math
from collections.abc import Sequence
from typing import Any

from absl import flags

from cnn_jax.attacks import checks, registry
from cnn_jax.errors import UsageError

# the budgets that the literature reports for images in 0..1
USUAL_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}


def number(text: str) -> float:
    """The value of '0.03' or of '8/255'."""
    try:
        top, _, bottom = text.partition("/")
        value = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"cannot read {text!r} as a budget; write 0.03 or 8/255")
    return value


def count(text: str) -> int:
    """The value of '200'."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"cannot read {text!r} as a number of images; write 10,50,200")
    return int(text)


def define_budget() -> None:
    """Define the flags of norm, budget and length."""
    section = {"module_name": "Attack"}
    flags.DEFINE_string(
        "norm",
        None,
        "Norm that measures the perturbation: linf, l2 or l1; by default the attack's usual one.",
        **section,
    )
    flags.DEFINE_string(
        "eps",
        None,
        "Budget of the perturbation, for pixels in 0..1, as in 0.03 or 8/255; by default "
        "8/255 (linf), 0.5 (l2) or 12 (l1).",
        **section,
    )
    flags.DEFINE_list(
        "epsilons",
        [],
        "Further budgets for the curve; by default eight, evenly spaced up to twice --eps.",
        **section,
    )
    flags.DEFINE_integer(
        "attack_steps",
        None,
        "Number of iterations of the attack; by default as published.",
        lower_bound=1,
        **section,
    )
    flags.DEFINE_integer(
        "attack_batch",
        128,
        "Number of images attacked at once, which changes no result.",
        lower_bound=1,
        **section,
    )


def chosen(
    names: Sequence[str], pixels: int
) -> tuple[list[registry.Attack], str, float, dict[str, Any]]:
    """Return the attacks of these names, the norm, the budget and further options.

    The norm is by default the first that they all know, of the first attack's.

    Args:
      pixels: values of an image.

    Raises:
      UsageError: no or an unknown attack, a norm one does not know, a budget not for 0..1.
    """
    if not names:
        raise UsageError("--attack names no attack; write pgd, or several: pgd,square")
    attacks = [registry.find(name) for name in names]
    values = flags.FLAGS
    norms = attacks[0].norms
    shared = [norm for norm in norms if all(norm in attack.norms for attack in attacks)]
    norm = values.norm or (shared or norms)[0]
    for name, attack in zip(names, attacks, strict=True):
        if norm not in attack.norms:
            raise UsageError(f"{name} knows {' and '.join(attack.norms)}, not {norm}")
    eps = USUAL_EPS[norm] if values.eps is None else number(values.eps)
    checks.check_eps(eps, norm, pixels)
    options = {} if values.attack_steps is None else {"steps": values.attack_steps}
    return attacks, norm, eps, options


def epsilons(eps: float, norm: str, pixels: int) -> list[float]:
    """Return the budgets of the curve, ascending."""
    given = [number(text) for text in flags.FLAGS.epsilons]
    if not given:
        return [eps * i / 4 for i in range(1, 9)]
    for each in given:
        checks.check_eps(each, norm, pixels)
    return sorted({*given})
