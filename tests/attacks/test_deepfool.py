"""DeepFool: foolbox's and adv-lib's values, and the plane whose distance is known."""

import numpy as np
import pytest

from cnn_jax import UsageError
from cnn_jax.attacks.deepfool import deepfool
from cnn_jax.attacks.loop import predictions
from cnn_jax.attacks.norms import NORMS


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_equals_foolbox(case, references, norm):
    found = deepfool(case.logits_of, case.images, case.labels, norm=norm)
    np.testing.assert_allclose(found, references[f"foolbox/deepfool_{norm}"], rtol=0, atol=1e-8)
    assert (predictions(case.logits_of, found) != case.labels).all()
    np.testing.assert_array_equal(found[0], case.images[0])  # misread from the start


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_equals_adv_lib(case, references, norm):
    images, labels = references["adv_lib/images"], references["adv_lib/labels"]
    found = deepfool(case.logits_of, images, labels, norm=norm)
    np.testing.assert_allclose(found, references[f"adv_lib/deepfool_{norm}"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_on_a_plane_it_is_within_five_percent_of_the_optimum(linear, norm):
    found = deepfool(linear.logits_of, linear.images, linear.labels, norm=norm)
    assert (predictions(linear.logits_of, found) != linear.labels).all()
    optimum = linear.margin / np.asarray(NORMS[norm].dual(linear.slope[None]))
    ratio = np.asarray(NORMS[norm].size(found - linear.images)) / optimum
    assert (ratio > 1).all()
    assert (ratio < 1.05).all()


def test_bad_options_are_told(case):
    with pytest.raises(UsageError, match="unknown norm 'l1'; known: l2, linf"):
        deepfool(case.logits_of, case.images, case.labels, norm="l1")
    with pytest.raises(UsageError, match="between 2 classes"):
        deepfool(case.logits_of, case.images, case.labels, candidates=1)
