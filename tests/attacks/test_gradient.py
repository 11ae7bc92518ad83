"""FGSM and PGD: torchattacks' and foolbox's values, budgets, and what an example may depend on."""

import jax
import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks.gradient import fgsm, pgd
from cnn_jax.attacks.loop import Batching, predictions
from cnn_jax.attacks.norms import NORMS

KEY = jax.random.key(0)
PGD = {
    "linf": {"eps": 0.05, "step_size": 0.01},
    "l2": {"eps": 0.5, "step_size": 0.1},
    "l1": {"eps": 4.0, "step_size": 1.0},
}
PLAIN = {"steps": 10, "random_start": False}


def test_the_network_is_the_one_that_the_references_were_made_with(case, references):
    np.testing.assert_allclose(
        case.logits_of(case.images), references["logits"], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize(
    ("reference", "attack", "options"),
    [
        ("torchattacks/fgsm", fgsm, {"eps": 0.05}),
        ("foolbox/fgsm", fgsm, {"eps": 0.05}),
        ("torchattacks/pgd_linf", pgd, {**PGD["linf"], **PLAIN}),
        ("foolbox/pgd_linf", pgd, {**PGD["linf"], **PLAIN}),
        ("torchattacks/pgd_l2", pgd, {**PGD["l2"], **PLAIN, "norm": "l2"}),
        ("foolbox/pgd_l2", pgd, {**PGD["l2"], **PLAIN, "norm": "l2"}),
        ("foolbox/pgd_l1", pgd, {**PGD["l1"], **PLAIN, "norm": "l1"}),
        ("torchattacks/momentum", pgd, {**PGD["linf"], **PLAIN, "momentum": 0.9}),
    ],
)
def test_equals(case, references, reference, attack, options):
    found = attack(case.logits_of, case.images, case.labels, **options)
    np.testing.assert_allclose(found, references[reference], rtol=0, atol=1e-12)


@pytest.mark.parametrize("reference", ["torchattacks/pgd_targeted", "foolbox/pgd_targeted"])
def test_a_targeted_attack_equals(case, references, reference):
    options = {**PGD["linf"], **PLAIN, "targets": case.targets}
    found = pgd(case.logits_of, case.images, case.labels, **options)
    np.testing.assert_allclose(found, references[reference], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_on_a_linear_model_is_the_optimal_one(linear, norm):
    """Within the ball, the value of a plane falls by eps times the dual norm of its slope."""
    eps = {"linf": 0.01, "l2": 0.1, "l1": 0.3}[norm]
    found = fgsm(linear.logits_of, linear.images, linear.labels, eps=eps, norm=norm)
    change = np.abs(np.tensordot(found - linear.images, linear.slope, 3))
    # the direction of l1 is spread over all pixels, as foolbox has it, and not optimal
    best = {
        "linf": eps * np.abs(linear.slope).sum(),
        "l2": eps * np.linalg.norm(linear.slope),
        "l1": eps * np.square(linear.slope).sum() / np.abs(linear.slope).sum(),
    }
    np.testing.assert_allclose(change, best[norm], rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_lies_in_the_ball_and_depends_on_key_and_index_alone(case, norm):
    start = {"eps": PGD[norm]["eps"], "norm": norm, "steps": 0, "step_size": 0}
    found = pgd(case.logits_of, case.images, case.labels, KEY, **start)
    size = np.asarray(NORMS[norm].size(found - case.images))
    assert (size > 0).all()
    assert (size <= start["eps"] * (1 + 1e-12)).all()
    part = slice(2, 5)
    some = pgd(
        case.logits_of,
        case.images[part],
        case.labels[part],
        KEY,
        **start,
        indices=np.arange(6)[part],
    )
    np.testing.assert_array_equal(some, found[part])
    other = pgd(case.logits_of, case.images, case.labels, jax.random.key(1), **start)
    assert (other != found).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_fares_the_same_in_any_batch_and_on_any_number_of_devices(case, norm):
    options = {**PGD[norm], "norm": norm, "steps": 5}
    together = pgd(case.logits_of, case.images, case.labels, KEY, **options)
    for batching in (Batching(4), Batching(8, tuple(jax.devices()))):
        found = pgd(case.logits_of, case.images, case.labels, KEY, **options, batching=batching)
        np.testing.assert_allclose(found, together, rtol=0, atol=1e-14)
    order = np.array([4, 0, 5])
    found = pgd(
        case.logits_of, case.images[order], case.labels[order], KEY, **options, indices=order
    )
    np.testing.assert_array_equal(found, together[order])


def test_early_stopping_leaves_fooled_images_and_loses_none(case):
    options = {"eps": 0.1, "step_size": 0.02, **PLAIN}
    stopped = pgd(case.logits_of, case.images, case.labels, **options, early_stop=True)
    full = pgd(case.logits_of, case.images, case.labels, **options)
    np.testing.assert_array_equal(stopped[0], case.images[0])  # misread from the start
    fooled = predictions(case.logits_of, stopped) != case.labels
    assert fooled.all()
    size = np.abs(stopped - case.images).max(axis=(1, 2, 3))
    assert (size < np.abs(full - case.images).max(axis=(1, 2, 3)) - 1e-3).any()


def test_restarts_keep_what_is_fooled_and_fool_no_fewer(case):
    options = {"eps": 0.03, "steps": 3}
    once = pgd(case.logits_of, case.images, case.labels, KEY, **options)
    thrice = pgd(case.logits_of, case.images, case.labels, KEY, **options, restarts=3)
    fooled = predictions(case.logits_of, once) != case.labels
    assert 0 < fooled.sum() < len(fooled)
    np.testing.assert_array_equal(thrice[fooled], once[fooled])
    assert (thrice[~fooled] != once[~fooled]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 8}, "8/255 = 0.03137"),
        ({"eps": 20.0, "norm": "l2"}, "differ by 12.1244 at most"),
        ({"eps": 0}, "above 0"),
        ({"norm": "l3"}, "unknown norm 'l3'"),
        ({"key": None}, "give it a key"),
    ],
)
def test_options_out_of_place_are_told(case, change, message):
    options = {"key": KEY, "eps": 0.05, **change}
    with pytest.raises(UsageError, match=message):
        pgd(case.logits_of, case.images, case.labels, **options)


def test_images_and_targets_out_of_place_are_told(case, wrong_types):
    def attack(images=case.images, labels=case.labels, **options):
        return fgsm(case.logits_of, images, labels, eps=0.05, **options)

    with pytest.raises(UsageError, match="0 to 255, not from 0 to 1; divide by 255"):
        attack(case.images * 255)
    with pytest.raises(UsageError, match="undo the normalisation"):
        attack(case.images - 0.5)
    with pytest.raises(UsageError, match="give floats"):
        attack((case.images * 255).astype(np.uint8))
    with pytest.raises(UsageError, match="one an image"):
        attack(labels=case.labels[:3])
    with pytest.raises(UsageError, match=f"image 0 is its own class, {case.labels[0]}"):
        attack(targets=case.labels)


def broken_for_bright_images(images):
    value = jax.numpy.sqrt(0.5 - images[:, 0, 0, 0])  # NaN above one half
    return jax.numpy.stack([value, 1 - value], axis=1)


def test_a_gradient_that_is_not_finite_is_told_with_its_image():
    images = np.full((3, 2, 2, 1), 0.2)
    images[1] = 0.9
    with pytest.raises(UsageError, match="not finite on image 1, step 1"):
        fgsm(broken_for_bright_images, images, np.zeros(3, int), eps=0.1)
