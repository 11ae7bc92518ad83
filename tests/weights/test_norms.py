"""The epsilon of norms that a detector holds constant: told by the file, or by the caller."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from cnn_jax import UsageError, load_weights, save_weights
from cnn_jax.models.registry import MODELS
from cnn_jax.weights import norms
from tests.models.tracing import drawn, variables

PUBLISHED = MODELS["fasterrcnn_resnet50_fpn"]
NAME = "backbone.body.bn1.running_var"
LEAVES = {
    ("batch_stats", "stem", "bn", "scale"): np.ones(2, "f"),
    ("batch_stats", "stem", "bn", "var"): np.array([1e-6, 1], "f"),
    ("batch_stats", "rpn", "bn", "var"): np.ones(2, "f"),  # of a norm that is trained
}
VARIANCE = ("batch_stats", "stem", "bn", "var")


@pytest.mark.parametrize(
    ("names", "epsilon", "told"),
    [
        ([NAME, "backbone.body.bn1.num_batches_tracked"], 1e-5, "plain ones, which count batches"),
        (["bn1.running_var", "fc.weight"], 1e-5, "for it is a classifier's"),
        ([NAME, "rpn.head.conv.weight"], 0.0, ""),  # names of torchvision's published files
        ([NAME, "rpn.head.conv.0.0.weight"], 0.0, "the file does not tell: .* norm_epsilon=1e-05"),
    ],
)
def test_what_the_names_of_a_detectors_tensors_tell(names, epsilon, told):
    found, why = norms.epsilon_of(PUBLISHED, names)
    assert found == epsilon
    assert re.search(told, why) if told else why == ""


def test_the_variances_take_up_the_difference():
    moved, note = norms.with_epsilon(PUBLISHED, LEAVES, [NAME], 1e-5)
    np.testing.assert_allclose(moved[VARIANCE], [1.1e-5, 1.00001], rtol=1e-6)
    assert moved["batch_stats", "rpn", "bn", "var"] is LEAVES["batch_stats", "rpn", "bn", "var"]
    assert note == (
        "its norms' epsilon is 1e-05, as given; here it is 0, and the variances take up the "
        "difference"
    )
    same, note = norms.with_epsilon(PUBLISHED, LEAVES, [NAME], 0.0)
    assert same == LEAVES
    assert note == "its norms' epsilon is taken for 0, as given"


def test_an_epsilon_without_constant_norms_is_an_error():
    leaves = {("batch_stats", "bn", "var"): np.ones(2)}
    assert norms.with_epsilon(PUBLISHED, leaves, [], None) == (leaves, "")
    with pytest.raises(UsageError, match="norm_epsilon=1e-05 is of no use"):
        norms.with_epsilon(PUBLISHED, leaves, [], 1e-5)
    with pytest.raises(UsageError, match="norm_epsilon=-1 is negative"):
        norms.with_epsilon(PUBLISHED, LEAVES, [], -1)


@pytest.mark.slow
def test_a_detector_saved_with_plain_norms_keeps_their_epsilon(tmp_path, capsys):
    name, path = "fasterrcnn_resnet50_fpn", tmp_path / "plain.safetensors"
    values = drawn(variables(name, 128))
    save_weights(name, values, path)
    tensors = safetensors.numpy.load_file(path)
    counters = {"backbone.body.bn1.num_batches_tracked": np.array(7)}
    safetensors.numpy.save_file(tensors | counters, path)
    loaded = flatten_dict(load_weights(name, path)["batch_stats"])
    assert "count batches" in capsys.readouterr().err
    for place, leaf in flatten_dict(values["batch_stats"]).items():
        expected = leaf + np.float32(1e-5) if place[-1] == "var" else leaf
        np.testing.assert_array_equal(loaded[place], expected)
    # the caller knows better
    exact = load_weights(name, path, norm_epsilon=0.0)
    jax.tree.map(np.testing.assert_array_equal, exact, jax.tree.map(jnp.asarray, values))
