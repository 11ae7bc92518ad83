"""What the flags shared by all experiments that look into a network load."""

import json

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import cnn_jax
from cnn_jax import UsageError, trained
from experiments.flags import subject as subjects


@pytest.fixture
def given(own_flags):
    """given(name=value, ...) sets flags for the test."""
    subjects.define()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    saved = flagsaver.save_flag_values()
    yield lambda **values: [setattr(flags.FLAGS, name, value) for name, value in values.items()]
    flagsaver.restore_flag_values(saved)


def test_a_run_gives_its_network_and_examples_of_the_split_it_was_evaluated_on(run, given):
    given(workdir=str(run), examples=5)
    subject = subjects.load("saliency")
    assert subject.folder == run / "saliency"
    assert subject.pixels.shape == (5, 16, 16, 1)
    assert (subject.pixels.min(), subject.pixels.max()) == (0, 1)
    assert subject.names == tuple(map(str, subject.labels))
    config = json.loads((subject.folder / "config.json").read_text())
    assert config["examples"] == 5
    assert config["source"]["parameters_sha256"] == subject.network.source["parameters_sha256"]
    assert "coordinator_address" not in config


def test_a_folder_is_read_in_the_channels_of_the_network(run, given, tmp_path):
    names = trained.from_workdir(run).class_names
    for level, name in enumerate(names):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (level,) * 3).save(tmp_path / "test" / name / "0.png")
    given(workdir=str(run), dataset=f"folder:{tmp_path}", split="test", examples=10)
    subject = subjects.load("folder")
    assert subject.pixels.shape == (10, 16, 16, 1)
    expected = [names.index(name) / 255 for name in subject.names]
    np.testing.assert_allclose(subject.pixels[:, 0, 0, 0], expected, rtol=1e-6)


def test_another_configuration_does_not_overwrite_results(run, given):
    given(workdir=str(run), examples=3)
    assert subjects.load("occlusion").folder == run / "occlusion"
    given(examples=4)
    assert subjects.load("occlusion").folder == run / "occlusion_2"
    given(output=str(run / "occlusion"))
    with pytest.raises(UsageError, match="examples: 3 there, 4 here"):
        subjects.load("occlusion")


def test_image_files_of_any_mode_are_read(run, given, tmp_path):
    Image.new("RGBA", (40, 23), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("I;16", (9, 30), 65535).save(tmp_path / "deep.png")
    given(workdir=str(run), image=[str(tmp_path / "clear.png"), str(tmp_path / "deep.png")])
    subject = subjects.load("ascent")
    np.testing.assert_array_equal(subject.pixels, np.ones((2, 16, 16, 1), np.float32))
    assert subject.labels is None
    assert subject.names == ("clear.png", "deep.png")


def test_weights_are_looked_into_with_an_image(given, tmp_path):
    model = cnn_jax.create_model("lenet5", num_classes=10)
    images = np.zeros((1, model.image_size, model.image_size, model.channels), np.float32)
    cnn_jax.save_weights(
        "lenet5", model.init(jax.random.key(0), images), tmp_path / "w.safetensors"
    )
    Image.new("L", (50, 50), 128).save(tmp_path / "grey.png")
    given(
        weights=str(tmp_path / "w.safetensors"),
        model="lenet5",
        image=[str(tmp_path / "grey.png")],
        workdir=str(tmp_path / "results"),
    )
    subject = subjects.load("saliency")
    assert subject.folder == tmp_path / "results"
    assert subject.class_names == tuple(map(str, range(10)))


def test_weights_with_class_names_know_the_classes_of_a_folder(given, draw_pets, tmp_path):
    images = np.zeros((1, 32, 32, 3), np.float32)
    model = cnn_jax.create_model("resnet20", num_classes=3)
    file = tmp_path / "w.safetensors"
    variables = model.init(jax.random.key(0), images)
    cnn_jax.save_weights("resnet20", variables, file, num_classes=3)
    (tmp_path / "names.txt").write_text("dog\nbird\ncat\n")
    given(
        weights=str(file),
        model="resnet20",
        class_names=str(tmp_path / "names.txt"),
        dataset=draw_pets(tmp_path / "images", cat=(0, 1, 0), dog=(0, 0, 1)),
        workdir=str(tmp_path / "results"),
    )
    subject = subjects.load("saliency")
    assert subject.class_names == ("dog", "bird", "cat")
    assert subject.names == tuple("cat" if label == 2 else "dog" for label in subject.labels)
    assert [image.mean((0, 1)).argmax() for image in subject.pixels] == [
        1 if name == "cat" else 2 for name in subject.names
    ]
    given(class_names=str(tmp_path / "gone.txt"))
    with pytest.raises(UsageError, match=r"cannot read --class_names=.*gone.txt"):
        subjects.load("saliency")
    given(class_names=None, weights=None, model=None, dataset=None, workdir="a run")
    given(class_names="names.txt")
    with pytest.raises(UsageError, match="--class_names goes with --weights"):
        subjects.load("saliency")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "w.pth"}, "--weights needs --model too"),
        ({"workdir": "RUN", "model": "lenet5"}, "--model goes with --weights"),
        ({"workdir": "RUN", "image": ["gone.png"]}, "cannot read gone.png: No such file"),
        ({"workdir": "RUN", "image": [__file__]}, "not an image in a format"),
        pytest.param(
            {"workdir": "RUN", "dataset": "shapes"},
            "shapes has 3 channels, the network takes 1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_does_not_fit_is_told(run, given, values, message):
    given(data_dir=str(run.parent / "data"))
    given(**{name: str(run) if value == "RUN" else value for name, value in values.items()})
    with pytest.raises(UsageError, match=message):
        subjects.load("saliency")


def test_a_classifier_and_a_layer_of_it_take_pixels(run):
    network = trained.from_workdir(run)
    pixels = np.random.default_rng(0).uniform(size=(2, 16, 16, 1)).astype(np.float32)
    normalized = (pixels - np.float32(network.mean)) / np.float32(network.std)
    logits = network.model.apply(network.variables, normalized)
    np.testing.assert_allclose(trained.classifier(network)(pixels), logits, atol=1e-6)
    np.testing.assert_allclose(trained.layer(network, "head")(pixels), logits, atol=1e-6)
    with pytest.raises(UsageError, match="unknown layer 'haed'; did you mean 'head'"):
        trained.layer(network, "haed")(pixels)
