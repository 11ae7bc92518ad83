"""The network's tensors in what training scripts and wrappers make of them."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from cnn_jax import UsageError
from cnn_jax.weights import files, pickle, state_dict

WRITTEN_BY_TORCH = Path(__file__).parents[1] / "references" / "pth"
PARAMETERS = {"conv.weight", "conv.bias", "norm.weight", "norm.bias", "fc.weight", "fc.bias"}
STATISTICS = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
AVERAGE_IS_TAKEN = "of the weights is taken, not the plain ones"


def named(**parts):
    return {name.replace("__", "."): np.full(2, value) for name, value in parts.items()}


def values(tensors):
    return {name: float(x.ravel()[0]) for name, x in tensors.items()}


@pytest.mark.parametrize(
    ("file", "value", "note"),
    [
        ("data_parallel", 1, ""),
        ("compiled_parallel", 1, ""),
        ("parallel_compiled", 1, ""),
        ("features_parallel", 1, ""),
        ("epoch_inside", 1, ""),
        ("model_state_dict", 1, ""),
        ("net", 1, ""),
        ("ema", 2, f"the moving average 'ema' {AVERAGE_IS_TAKEN}"),
        ("lightning", 1, "1 beside 'model' are left aside, such as criterion.weight"),
        ("torchvision", 2, f"the moving average 'model_ema' {AVERAGE_IS_TAKEN}"),
        ("timm", 2, f"the moving average 'state_dict_ema' {AVERAGE_IS_TAKEN}"),
    ],
)
def test_files_as_training_scripts_write_them(file, value, note, capsys):
    path = WRITTEN_BY_TORCH / f"{file}.pth"
    tensors = files.read_tensors(path)
    assert tensors.keys() == PARAMETERS | STATISTICS
    assert set(values(tensors).values()) == {value}
    assert capsys.readouterr().err == (f"note: {path}: {note}\n" if note else "")


@pytest.mark.parametrize("file", ["ema", "torchvision", "timm", "ema_of_parameters"])
def test_the_plain_weights_are_taken_if_asked_for(file):
    found = pickle.read(WRITTEN_BY_TORCH / f"{file}.pth", averaged=False)
    assert set(values(found.tensors).values()) == {1}
    assert "the plain weights are taken, not their moving average" in found.note


def test_an_average_of_parameters_alone_has_the_statistics_of_the_plain_weights():
    found = pickle.read(WRITTEN_BY_TORCH / "ema_of_parameters.pth")
    expected = dict.fromkeys(PARAMETERS, 2.0) | dict.fromkeys(STATISTICS, 1.0)
    assert values(found.tensors) == expected
    assert found.note.endswith("not the plain ones, but for the 3 it lacks")


def test_wrappers_names_are_taken_off_in_safetensors_too(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(named(_orig_mod__module__a__weight=1, module__b__bias=2), path)
    assert values(files.read_tensors(path)) == {"a.weight": 1, "b.bias": 2}


def test_of_a_network_and_its_average_side_by_side_one_is_taken():
    tensors = named(model__a__weight=1, ema_model__module__a__weight=2, loss__weight=3)
    for averaged, value in ((True, 2), (False, 1)):
        found = state_dict.named(tensors, averaged)
        assert values(found.tensors) == {"a.weight": value}
        assert "'ema_model'" in found.note
        assert "1 beside 'model' are left aside, such as loss.weight" in found.note


def test_an_average_alone_is_taken_without_a_word():
    assert state_dict.find({"ema": named(a__weight=2)}, np.ndarray) == state_dict.Found(
        {"a.weight": pytest.approx(2)}
    )


def test_a_state_dict_is_left_as_it_is():
    tensors = named(conv__weight=1, head__bias=2) | {"scalar": np.array(7)}
    assert state_dict.find(tensors, np.ndarray) == state_dict.Found(tensors)


@pytest.mark.parametrize("root", [None, [1], {}, {"model": {}}, {"epoch": 1}, {1: np.zeros(1)}])
def test_what_holds_no_tensors_gives_none(root):
    assert state_dict.find(root, np.ndarray).tensors == {}


def test_a_dict_that_holds_itself_ends():
    root = {"epoch": 1}
    root["model"] = root["ema"] = root
    assert state_dict.find(root, np.ndarray).tensors == {}


def test_a_file_without_weights_names_its_entries(tmp_path):
    import pickle as python_pickle

    from tests.weights.test_pickle import write_zip

    path = write_zip(tmp_path / "w.pth", python_pickle.dumps({"epoch": 3, "args": "-x"}, 2))
    with pytest.raises(UsageError, match="it holds no state dict; its entries are epoch, args"):
        files.read_tensors(path)
