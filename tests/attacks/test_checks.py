"""Labels and targets that are no classes are told, by whatever is called with them."""

import jax
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks import masking, robustness
from cnn_jax.attacks.autoattack import evaluate
from cnn_jax.attacks.registry import ATTACKS

KEY = jax.random.key(0)


def attacked(case, name, labels, **options):
    attack = ATTACKS[name]
    budget = {"eps": 0.1} if attack.bounded else {}
    norm = attack.norms[0]
    return attack.function(case.logits_of, case.images, labels, KEY, norm=norm, **budget, **options)


@pytest.mark.parametrize("name", ATTACKS)
def test_labels_outside_the_classes_are_told_by_every_attack(case, name, wrong_types):
    for wrong in (10, -1):
        labels = case.labels.copy()
        labels[2] = wrong
        with pytest.raises(UsageError, match=f"label of image 2 is {wrong}.*classes are 0 to 9"):
            attacked(case, name, labels)
    with pytest.raises(UsageError, match="labels are float64; give integers"):
        attacked(case, name, case.labels + 0.0)


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.targeted])
def test_targets_outside_the_classes_are_told_by_every_targeted_attack(case, name, wrong_types):
    targets = case.targets.copy()
    targets[4] = 10
    with pytest.raises(UsageError, match=r"target of image 4 is 10.*classes are 0 to 9"):
        attacked(case, name, case.labels, targets=targets)
    with pytest.raises(UsageError, match=r"6 images, targets \[3\]"):
        attacked(case, name, case.labels, targets=targets[:3])


def test_labels_outside_the_classes_are_told_by_what_judges(case):
    logits_of, images, labels = case.logits_of, case.images, case.labels + 5
    pgd = ATTACKS["pgd"]
    for call in (
        lambda: robustness.judge(logits_of, images, images, labels),
        lambda: robustness.attack_right_ones(pgd, logits_of, images, labels, KEY, eps=0.1),
        lambda: robustness.correct_under_attack(
            pgd, logits_of, images, labels, KEY, [0.1], norm="linf"
        ),
        lambda: masking.without_gradient(logits_of, images, labels),
        lambda: evaluate(logits_of, images, labels, KEY, eps=0.1),
    ):
        with pytest.raises(UsageError, match="classes are 0 to 9"):
            call()
    targets = np.full(6, 12)
    with pytest.raises(UsageError, match="target of image 0 is 12"):
        robustness.judge(logits_of, images, images, case.labels, targets)
