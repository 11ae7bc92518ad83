"""The table of attacks by name."""

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from cnn_jax import errors, plugins
from cnn_jax.attacks import (
    apgd,
    autoattack,
    carlini_wagner,
    checks,
    ddn,
    deepfool,
    fab,
    gradient,
    square,
)
from cnn_jax.attacks.norms import NORMS
from cnn_jax.errors import UsageError


class Attack(NamedTuple):
    """An attack and what it can be asked for.

    function(logits_of, images, labels, key, *, norm, eps, targets, indices, batching, ...) ->
      adversarial images, with eps where it is bounded, targets where it is targeted, and indices
      where it is random.
    norms: that it knows, its own choice first.
    bounded: it stays within a budget eps; else it makes the norm of the perturbation small.
    targeted: it takes targets.
    random: it takes a key and indices.
    stops: it takes early_stop, to leave an image as soon as it is fooled.
    gradient: it follows the network's gradient, which may be masked.
    """

    function: Callable
    norms: tuple[str, ...]
    bounded: bool
    targeted: bool = False
    random: bool = False
    stops: bool = False
    gradient: bool = True


_BOUNDED = {"bounded": True, "random": True}
_ASCENT = {**_BOUNDED, "targeted": True, "stops": True}
_ALL, _TWO = ("linf", "l2", "l1"), ("linf", "l2")
ATTACKS = {
    "fgsm": Attack(gradient.fgsm, _ALL, **_ASCENT),
    "pgd": Attack(gradient.pgd, _ALL, **_ASCENT),
    "apgd": Attack(apgd.apgd, _TWO, **_ASCENT),
    "apgd_dlr": Attack(partial(apgd.apgd, loss="dlr"), _TWO, **_ASCENT),
    "apgd_targeted": Attack(apgd.apgd_targeted, _TWO, **_BOUNDED, stops=True),
    "square": Attack(square.square, _TWO, **_BOUNDED, gradient=False),
    "autoattack": Attack(autoattack.autoattack, _TWO, **_BOUNDED),
    "deepfool": Attack(deepfool.deepfool, ("l2", "linf"), bounded=False),
    "ddn": Attack(ddn.ddn, ("l2",), bounded=False, targeted=True),
    "carlini_wagner": Attack(carlini_wagner.carlini_wagner, ("l2",), bounded=False, targeted=True),
    "fab": Attack(fab.fab, _TWO, bounded=False),
}


def register_attack(name: str, attack: Attack) -> None:
    """Let --attack know an attack by this name.

    What it gives is checked on every call: images as they came, with pixels in 0..1 and within eps.

    Raises:
      UsageError: the name is taken, or this is no Attack of known norms.
    """
    if not isinstance(attack, Attack):
        raise UsageError(f"the attack {name!r} is no cnn_jax.attacks.registry.Attack; make one")
    for norm in attack.norms or ("",):
        if norm not in NORMS:
            raise errors.unknown(f"norm of the attack {name!r}", norm, NORMS)
    function = functools.partial(_checked, name, attack)
    plugins.register(ATTACKS, "attack", name, attack._replace(function=function))


def _checked(name: str, attack: Attack, logits_of, images, labels, *args, **options):
    """What the attack gives.

    Raises:
      UsageError: it is no adversarial images, or they leave the budget.
    """
    found = np.asarray(attack.function(logits_of, images, labels, *args, **options))
    if found.shape != images.shape or not np.all((found >= 0) & (found <= 1)):
        raise UsageError(
            f"the attack {name} gave {found.dtype}{list(found.shape)} of {found.min():.4g} to "
            f"{found.max():.4g} for images {list(images.shape)}; it must give as many, in 0..1"
        )
    if attack.bounded:
        eps, size = options["eps"], NORMS[options["norm"]].size(found - images).max(initial=0)
        if size > checks.largest(eps, found.dtype):
            raise UsageError(
                f"the attack {name} left its budget: {size:.6g} in {options['norm']}, with eps "
                f"{eps:.6g}; mend it"
            )
    return found


def find(name: str) -> Attack:
    """Return the named attack.

    Raises:
      UsageError: there is none of this name.
    """
    if name not in ATTACKS:
        raise errors.unknown("attack", name, ATTACKS)
    return ATTACKS[name]
