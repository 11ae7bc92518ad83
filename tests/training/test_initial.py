"""Where training starts from: another run's network, with its head for the classes it knows."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import create_model, load_pretrained, save_weights, trained
from cnn_jax.errors import UsageError
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.initial import as_published, initial_variables

RED, GREEN, BLUE = (1, 0, 0), (0, 1, 0), (0, 0, 1)
SETTINGS = {
    "model": "lenet5",
    "model_options": "filters=(4,), neurons=(8,)",
    "image_size": 8,
    "batch_size": 8,
    "learning_rate": 0.02,
    "checkpoint_every": 20,
}


def train(dataset, workdir, **options):
    said = []
    config = TrainConfig(**{**SETTINGS, "dataset": dataset, **options})
    result = loop.train(config, workdir, loop.Callbacks(say=said.append), devices=jax.devices()[:1])
    return result, said


@pytest.fixture(scope="module")
def pets(draw_pets, tmp_path_factory):
    """A run that tells bird, cat and dog apart without a mistake."""
    folder = tmp_path_factory.mktemp("pets")
    dataset = draw_pets(folder / "images", bird=RED, cat=GREEN, dog=BLUE)
    result, _ = train(dataset, folder / "run", steps=60, ema_decay=0.8)
    assert result.evaluation["top1_error"] == 0
    return folder / "run"


def head_of(workdir):
    return trained.from_workdir(workdir).variables["params"]["head"]


def test_a_run_goes_on_from_another_runs_averaged_weights(pets, tmp_path):
    dataset = trained.from_workdir(pets).config.dataset
    options = {"init_from": str(pets), "image_size": None}  # of the run, not LeNet's 32
    result, said = train(dataset, tmp_path, steps=1, learning_rate=0.0, **options)
    assert result.evaluation["top1_error"] == 0
    assert said[0] == f"starting from the averaged weights of {pets}, step 60: the head with it"
    one, other = (trained.from_workdir(each).variables["params"] for each in (pets, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_head_is_kept_for_the_classes_of_the_same_names(pets, draw_pets, tmp_path):
    """cat and dog are learnt already, in whatever place they are now; ant is new."""
    dataset = draw_pets(tmp_path / "images", ant=(1, 1, 0), cat=GREEN, dog=BLUE)
    options = {"steps": 1, "learning_rate": 0.0}
    _, said = train(dataset, tmp_path / "run", init_from=str(pets), **options)
    assert said[0].endswith(
        "of the head 2 of 3 classes, by name (cat, dog); the others are drawn anew"
    )
    train(dataset, tmp_path / "fresh", **options)
    ours, theirs, fresh = map(head_of, (tmp_path / "run", pets, tmp_path / "fresh"))
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(ours[name][..., 1:], theirs[name][..., 1:])
        np.testing.assert_array_equal(ours[name][..., 0], fresh[name][..., 0])


def test_classes_in_other_places_keep_their_part_of_the_head(pets, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path / "images", cat=GREEN, dog=BLUE)
    result, said = train(dataset, tmp_path / "run", init_from=str(pets), steps=1, learning_rate=0.0)
    assert result.evaluation["top1_error"] == 0
    assert said[0].endswith("of the head 2 of 2 classes, by name (cat, dog)")
    np.testing.assert_array_equal(
        head_of(tmp_path / "run")["kernel"], head_of(pets)["kernel"][:, 1:]
    )


def test_classes_without_names_keep_nothing_of_a_head_of_others(pets, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path / "images", **{"0": RED, "1": GREEN, "2": BLUE})
    _, said = train(dataset, tmp_path / "run", init_from=str(pets), steps=1, learning_rate=0.0)
    assert said[0].endswith("of the head 0 of 3 classes, by name; the others are drawn anew")
    assert not np.array_equal(head_of(tmp_path / "run")["kernel"], head_of(pets)["kernel"])


def test_a_resumed_run_goes_on_from_its_own_weights(pets, tmp_path):
    dataset = trained.from_workdir(pets).config.dataset
    config = {"init_from": str(pets), "steps": 2}
    first, _ = train(dataset, tmp_path, **config)
    again, said = train(dataset, tmp_path, **config)
    assert again.parameters_sha256 == first.parameters_sha256
    assert not any("starting" in line for line in said)


def test_a_run_that_keeps_its_best_checkpoint_gives_that(pets, tmp_path):
    """This run forgets, by weight decay; once damaged, its best gives way to the newest."""
    dataset = trained.from_workdir(pets).config.dataset
    options = {"steps": 8, "checkpoint_every": 4, "keep": 1, "keep_best": "loss", "momentum": 0.0}
    options |= {"init_from": str(pets), "learning_rate": 0.1, "weight_decay": 2.0}
    options |= {"schedule": "constant"}
    train(dataset, tmp_path / "run", **options)
    best = trained.from_workdir(tmp_path / "run", "best").source["step"]
    assert best == 4
    start = {"init_from": str(tmp_path / "run"), "steps": 1, "learning_rate": 0.0}
    _, said = train(dataset, tmp_path / "best", **start)
    assert said[0] == (
        f"starting from the weights of {tmp_path / 'run'}, step {best}, its best loss: "
        "the head with it"
    )
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(best) / "state")
    _, said = train(dataset, tmp_path / "newest", **start)
    assert "is damaged" in said[0]
    assert "step 8: the head with it" in said[1]


def test_a_run_of_another_network_is_one_error_that_says_which(pets, tmp_path):
    options = {"init_from": str(pets), "model_options": "filters=(5,), neurons=(8,)"}
    other = dataclasses.replace(trained.from_workdir(pets).config, **options)
    with pytest.raises(UsageError, match=r"fit .*--model_options='filters=\(4,\)") as error:
        loop.train(other, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    config = TrainConfig(**SETTINGS, dataset="digits", init_from=str(tmp_path / "empty"), steps=1)
    with pytest.raises(UsageError, match="no checkpoint in"):
        loop.train(dataclasses.replace(config, data_dir=str(tmp_path / "data")), tmp_path / "run")


def test_a_file_of_another_number_of_classes_has_its_head_drawn_anew_and_that_is_told(tmp_path):
    images = jax.ShapeDtypeStruct((1, 32, 32, 1), np.float32)
    learnt = create_model("lenet5", 7).init(jax.random.key(7), images)
    save_weights("lenet5", learnt, tmp_path / "w.safetensors", num_classes=7)
    config = TrainConfig(model="lenet5", init_from=str(tmp_path / "w.safetensors"), image_size=32)
    said = []
    variables = initial_variables(config, create_model("lenet5", 3), 1, say=said.append)
    assert said == [
        f"{tmp_path / 'w.safetensors'}: its head is of another number of classes; it is drawn anew"
    ]
    kept = {
        name: np.array_equal(leaf["kernel"], learnt["params"][name]["kernel"])
        for name, leaf in variables["params"].items()
        if name != "head"
    }
    assert all(kept.values())
    said.clear()
    initial_variables(config, create_model("lenet5", 7), 1, say=said.append)
    assert not said


@pytest.mark.slow
def test_a_classifiers_run_becomes_the_backbone_of_a_segmenter(monkeypatch):
    classifier = create_model("resnet50", 3)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    learnt = classifier.init(jax.random.key(7), images)
    config = TrainConfig(model="fcn_resnet50", init_from=str(Path.cwd()), image_size=64)
    source = {"step": 5, "averaged": False}
    run = trained.Trained(
        classifier, learnt, None, (), (), ("a", "b", "c"), source, TrainConfig(model="resnet50")
    )
    monkeypatch.setattr(trained, "from_workdir", lambda *args, **kwargs: run)
    said = []
    model = create_model("fcn_resnet50", 2)
    names = ("background", "cat")
    variables = initial_variables(config, model, 3, class_names=names, say=said.append)
    assert said[0].endswith("step 5: as the backbone; all else is drawn anew")
    kernels = [
        {leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(each)) if leaf.ndim == 4}
        for each in (learnt, variables)
    ]
    assert kernels[0] < kernels[1]


@pytest.mark.parametrize(("thaw_at", "moves"), [(3, False), (1, True)])
def test_what_is_frozen_keeps_its_weights_up_to_the_step_at_which_it_thaws(
    thaw_at, moves, pets, tmp_path
):
    dataset = trained.from_workdir(pets).config.dataset
    before = trained.from_workdir(pets).variables["params"]["conv1"]
    train(dataset, tmp_path, steps=2, init_from=str(pets), freeze="conv", thaw_at=thaw_at)
    after = trained.from_workdir(tmp_path).variables["params"]["conv1"]
    same = all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
    assert same != moves


@pytest.mark.slow
def test_published_weights_by_name_bring_their_preprocessing_and_get_a_new_head():
    config = TrainConfig(
        model="tf_efficientnet_lite0", init_from="pretrained", num_classes=3, image_size=32
    )
    tuned = as_published(config)
    assert (tuned.channels, tuned.mean, tuned.std) == (3, (127 / 255,) * 3, (128 / 255,) * 3)
    given = dataclasses.replace(config, mean=(0.5, 0.5, 0.5))
    assert as_published(given) == given
    model = create_model(config.model, 3)
    start = initial_variables(config, model, 3)
    published = load_pretrained(config.model)
    assert start["params"]["head"]["kernel"].shape == (1280, 3)
    jax.tree.map(
        np.testing.assert_array_equal, start["params"]["stem"], published["params"]["stem"]
    )
