"""DDN, Carlini-Wagner and FAB: published values, and the plane whose distance is known."""

import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks.carlini_wagner import carlini_wagner
from cnn_jax.attacks.ddn import ddn
from cnn_jax.attacks.fab import fab, project_onto_plane
from cnn_jax.attacks.loop import predictions
from cnn_jax.attacks.norms import NORMS

CARLINI = {"steps": 40, "constant": 0.1, "searches": 5, "abort_early": False}


@pytest.mark.parametrize("targeted", [False, True])
def test_ddn_equals_adv_lib(case, references, targeted):
    options = {"targets": case.targets} if targeted else {}
    found = ddn(case.logits_of, case.images, case.labels, steps=60, **options)
    expected = references["adv_lib/ddn_targeted" if targeted else "adv_lib/ddn"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("targeted", [False, True])
def test_carlini_wagner_equals_adv_lib(case, references, targeted):
    options = CARLINI | ({"targets": case.targets} if targeted else {})
    found = carlini_wagner(case.logits_of, case.images, case.labels, **options)
    name = "adv_lib/carlini_wagner" + ("_targeted" if targeted else "")
    np.testing.assert_allclose(found, references[name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_equals_the_authors(case, references, norm):
    """Towards the likeliest wrong class; the first image is misread already."""
    found = fab(case.logits_of, case.images, case.labels, norm=norm, steps=25, most_targets=1)
    np.testing.assert_array_equal(found[0], case.images[0])
    np.testing.assert_allclose(found[1:], references[f"fab/{norm}"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_onto_a_plane_within_the_box(references, norm):
    point, slope, lead = (references[f"plane/{name}"] for name in ("point", "slope", "lead"))
    found = np.asarray(project_onto_plane(point, slope, lead, norm))
    np.testing.assert_allclose(found, references[f"plane/{norm}"], rtol=0, atol=1e-10)
    assert (point + found >= -1e-15).all()
    assert (point + found <= 1 + 1e-15).all()
    on_plane = np.abs((slope * found).sum(axis=1) + lead) < 1e-9
    assert 0 < (~on_plane).sum() < 20  # some planes miss the box


@pytest.mark.parametrize(
    ("attack", "norm", "options"),
    [
        (ddn, "l2", {"steps": 200}),
        (carlini_wagner, "l2", {"steps": 300, "constant": 0.1}),
        (fab, "l2", {"steps": 20}),
        (fab, "linf", {"steps": 20}),
    ],
)
def test_on_a_plane_it_is_within_five_percent_of_the_optimum(linear, attack, norm, options):
    found = attack(linear.logits_of, linear.images, linear.labels, norm=norm, **options)
    assert (predictions(linear.logits_of, found) != linear.labels).all()
    optimum = linear.margin / np.asarray(NORMS[norm].dual(linear.slope[None]))
    ratio = np.asarray(NORMS[norm].size(found - linear.images)) / optimum
    assert (ratio > 1 - 1e-12).all()
    assert (ratio < 1.05).all()


@pytest.mark.parametrize(
    ("attack", "options"),
    [(ddn, {}), (carlini_wagner, {"constant": 10.0, "searches": 2, "learning_rate": 0.1})],
)
def test_a_target_is_reached(case, attack, options):
    options |= {"steps": 60, "targets": case.targets}
    found = attack(case.logits_of, case.images, case.labels, **options)
    np.testing.assert_array_equal(predictions(case.logits_of, found), case.targets)
    with pytest.raises(UsageError, match="is its own class"):
        attack(case.logits_of, case.images, case.labels, targets=case.labels)


def test_aborting_early_costs_little_size(case):
    options = {"steps": 100, "constant": 0.1, "searches": 4}
    images, labels = case.images[1:], case.labels[1:]
    full, aborted = (
        carlini_wagner(case.logits_of, images, labels, **options, abort_early=abort)
        for abort in (False, True)
    )
    assert (predictions(case.logits_of, aborted) != labels).all()
    ratio = NORMS["l2"].size(aborted - images) / NORMS["l2"].size(full - images)
    assert float(np.median(ratio)) < 1.01


def test_fab_leaves_an_image_fooled_within_enough(case):
    images, labels = case.images[1:], case.labels[1:]
    options = {"norm": "l2", "steps": 10}
    first = fab(case.logits_of, images, labels, **options, most_targets=1)
    enough = float(np.median(NORMS["l2"].size(first - images)))
    every = fab(case.logits_of, images, labels, **options)
    some = fab(case.logits_of, images, labels, **options, enough=enough)
    left = np.asarray(NORMS["l2"].size(first - images)) <= enough
    np.testing.assert_array_equal(some[left], first[left])
    np.testing.assert_array_equal(some[~left], every[~left])
