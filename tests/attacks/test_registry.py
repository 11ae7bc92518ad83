"""Attacks and explanation methods from outside."""

import jax
import numpy as np
import pytest

from cnn_jax import plugins
from cnn_jax.attacks import registry
from cnn_jax.attacks.registry import ATTACKS, Attack, register_attack
from cnn_jax.attacks.robustness import attack_right_ones
from cnn_jax.errors import UsageError
from cnn_jax.visualize import methods
from cnn_jax.visualize.methods import Method, register_method

IMAGES = np.full((3, 2, 2, 1), 0.5, np.float32)
LABELS = np.zeros(3, int)


@pytest.fixture(autouse=True)
def _registered_for_one_test(monkeypatch):
    monkeypatch.setattr(registry, "ATTACKS", dict(ATTACKS))
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    monkeypatch.setattr(plugins, "REGISTERED", {})


def first_class(images):
    """Logits of a network that answers 0."""
    return images.reshape(len(images), -1).sum(axis=1)[:, None] * np.array([1.0, 0.5])


def moving(by):
    def attack(logits_of, images, labels, key, *, norm, eps, batching):
        return images + np.float32(by)

    return attack


def run(attack):
    register_attack("mine", attack)
    options = {"norm": "linf", "eps": 0.1}
    key = jax.random.key(0)
    return attack_right_ones(registry.find("mine"), first_class, IMAGES, LABELS, key, **options)


def test_an_attack_is_found_by_the_name_it_was_registered_by():
    np.testing.assert_array_equal(run(Attack(moving(0.1), ("linf",), bounded=True)), IMAGES + 0.1)
    for name in ("mine", "pgd"):
        with pytest.raises(UsageError, match=rf"^there is an attack '{name}' already"):
            register_attack(name, ATTACKS["pgd"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (moving(0.11), r"^the attack mine left its budget: 0.11 in linf, with eps 0.1; mend it$"),
        (moving(0.6), r"^the attack mine gave float32\[3, 2, 2, 1\] of 1.1 to 1.1 for images"),
        (moving(np.nan), r"^the attack mine gave float32\[3, 2, 2, 1\] of nan to nan"),
        (lambda *_, **options: IMAGES[:1], r"^the attack mine gave float32\[1, 2, 2, 1\]"),
    ],
)
def test_an_attack_that_cheats_is_told(function, message):
    with pytest.raises(UsageError, match=message):
        run(Attack(function, ("linf",), bounded=True))


def test_an_attack_without_a_budget_may_go_anywhere():
    register_attack("mine", Attack(moving(0.4), ("l2",), bounded=False))
    found = registry.find("mine").function(
        first_class, IMAGES, LABELS, None, norm="l2", eps=None, batching=None
    )
    np.testing.assert_allclose(found, 0.9, rtol=1e-6)


def test_what_is_no_attack_or_method_is_refused(wrong_types):
    with pytest.raises(UsageError, match=r"^the attack 'mine' is no cnn_jax.attacks.registry.Att"):
        register_attack("mine", moving(0))
    with pytest.raises(UsageError, match=r"^unknown norm of the attack 'mine' 'l3'"):
        register_attack("mine", Attack(moving(0), ("l3",), bounded=True))
    with pytest.raises(UsageError, match=r"^the method 'mine' is no cnn_jax.visualize.methods.Me"):
        register_method("mine", moving(0))


def test_a_method_is_found_by_the_name_it_was_registered_by():
    method = Method("mine", lambda f, images, targets, settings: images[..., 0])
    register_method("mine", method)
    assert methods.named("mine") is method
    for name in ("mine", "saliency", "noise"):
        with pytest.raises(UsageError, match=rf"^there is a \w+ '{name}' already"):
            register_method(name, method)
