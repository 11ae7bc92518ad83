"""Variables and published tensors: names, axis orders, and that all of both are used."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnn_jax import UsageError
from cnn_jax.models.entry import Entry
from cnn_jax.models.registry import MODELS
from cnn_jax.weights import convert
from tests.models.tracing import variables

VARIABLES = {
    "params": {
        "stem": {
            "kernel": np.arange(12.0).reshape(2, 3, 1, 2),
            "bn": {"scale": np.ones(2), "bias": np.zeros(2)},
        },
        "head": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.arange(3.0)},
    },
    "batch_stats": {"stem": {"bn": {"mean": np.zeros(2), "var": np.ones(2)}}},
}
ENTRY = Entry(None, published_name=lambda path: path.replace("head", "fc").replace("/", "."))


def test_kernels_turn_and_leaves_get_pytorchs_names():
    tensors = convert.to_published(ENTRY, VARIABLES)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "stem.weight": (2, 1, 2, 3),
        "stem.bn.weight": (2,),
        "stem.bn.bias": (2,),
        "fc.weight": (3, 2),
        "fc.bias": (3,),
        "stem.bn.running_mean": (2,),
        "stem.bn.running_var": (2,),
    }
    kernel = VARIABLES["params"]["stem"]["kernel"]
    assert tensors["stem.weight"][1, 0, 1, 2] == kernel[1, 2, 0, 1]
    assert tensors["fc.weight"][2, 1] == VARIABLES["params"]["head"]["kernel"][1, 2]


def test_other_leaves_keep_their_name_and_bring_their_channels_forward():
    entry = Entry(None)
    variables = {"params": {"block": {"layer_scale": np.zeros((1, 1, 5))}}}
    tensors = convert.to_published(entry, variables)
    assert tensors["block.layer_scale"].shape == (5, 1, 1)
    back = convert.from_published(entry, tensors, variables)
    assert back["params"]["block"]["layer_scale"].shape == (1, 1, 5)


@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 4, 5), (7, 4, 5), (2, 3, 4, 5, 6)])
def test_layouts_are_inverse(shape):
    kernel = np.arange(np.prod(shape)).reshape(shape)
    published = convert.to_published_layout("kernel", kernel)
    assert published.shape == (shape[-1], shape[-2], *shape[:-2])
    np.testing.assert_array_equal(convert.from_published_layout("kernel", published), kernel)


def test_there_and_back_is_the_identity():
    tensors = convert.to_published(ENTRY, VARIABLES)
    back = convert.from_published(ENTRY, tensors, VARIABLES)
    assert back.keys() == VARIABLES.keys()
    np.testing.assert_equal(back, VARIABLES)


def test_one_error_names_all_that_is_missing_left_over_and_misshapen():
    tensors = convert.to_published(ENTRY, VARIABLES)
    del tensors["stem.bn.bias"], tensors["fc.bias"]
    tensors |= {"aux.weight": np.zeros(1), "fc.weight": np.zeros((5, 2)), "x\ny": np.zeros(1)}
    with pytest.raises(UsageError) as error:
        convert.from_published(ENTRY, tensors, VARIABLES)
    message = str(error.value)
    assert "2 missing: stem.bn.bias, fc.bias;" in message
    assert "2 left over: aux.weight, 'x\\ny'" in message
    assert "1 of another shape: fc.weight is [5, 2], not [3, 2]" in message
    assert "\n" not in message


def test_a_file_of_another_network_takes_a_few_lines():
    tensors = {f"layer{i}.{'x' * 200}": np.zeros(1) for i in range(1000)}
    with pytest.raises(UsageError) as error:
        convert.from_published(ENTRY, tensors, VARIABLES)
    message = str(error.value)
    assert message.startswith("7 missing: ")
    assert "1000 left over: layer0.xxx" in message
    assert message.endswith(", ...")
    assert len(message) < 600


def test_a_tensor_of_another_rank_is_of_another_shape():
    tensors = convert.to_published(ENTRY, VARIABLES)
    tensors["fc.weight"] = tensors["fc.weight"][:, :, None, None]
    with pytest.raises(UsageError, match=r"fc\.weight is \[3, 2, 1, 1\], not \[3, 2\]"):
        convert.from_published(ENTRY, tensors, VARIABLES)


def test_counters_and_what_the_entry_calls_unused_are_left_aside():
    tensors = convert.to_published(ENTRY, VARIABLES)
    tensors |= {"stem.bn.num_batches_tracked": np.array(3), "aux1.conv.weight": np.zeros(1)}
    entry = ENTRY._replace(unused=("aux1.",))
    np.testing.assert_equal(convert.from_published(entry, tensors, VARIABLES), VARIABLES)
    with pytest.raises(UsageError, match=r"1 left over: aux1\.conv\.weight"):
        convert.from_published(ENTRY, tensors, VARIABLES)


def test_names_of_older_files_are_brought_up_to_date():
    tensors = convert.to_published(ENTRY, VARIABLES)
    tensors["stem.b.n.bias"] = tensors.pop("stem.bn.bias")
    entry = ENTRY._replace(current_name=lambda name: name.replace("b.n", "bn"))
    tensors, note = convert.as_published(entry, tensors, VARIABLES)
    np.testing.assert_equal(convert.from_published(entry, tensors, VARIABLES), VARIABLES)
    assert note == ""


def test_replaced_leaves_keep_the_templates_value_where_the_shape_differs():
    tensors = convert.to_published(ENTRY, VARIABLES)
    tensors |= {"fc.weight": np.zeros((5, 2)), "fc.bias": np.full(3, 8.0)}
    head = [("params", "head", "kernel"), ("params", "head", "bias")]
    found = convert.from_published(ENTRY, tensors, VARIABLES, replaced=head)["params"]["head"]
    np.testing.assert_array_equal(found["kernel"], VARIABLES["params"]["head"]["kernel"])
    np.testing.assert_array_equal(found["bias"], 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_variable_of_every_model_has_a_name_of_its_own(name):
    paths = flatten_dict(variables(name))
    names = {convert.tensor_name(MODELS[name], path) for path in paths}
    assert len(names) == len(paths)
