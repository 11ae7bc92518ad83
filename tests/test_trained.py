"""A network meets a data set: its classes are matched by name before anything is counted."""

import json

import jax
import numpy as np
import pytest

from cnn_jax import create_model, evaluation, save_weights, trained
from cnn_jax.data import datasets
from cnn_jax.errors import UsageError
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from tests.command import run_command

RED, GREEN, BLUE = (1, 0, 0), (0, 1, 0), (0, 0, 1)


@pytest.fixture(scope="module")
def pets(draw_pets, tmp_path_factory):
    """The folder of a run that tells bird, cat and dog apart without a mistake."""
    folder = tmp_path_factory.mktemp("pets")
    config = TrainConfig(
        model="lenet5",
        model_options="filters=(4,), neurons=(8,)",
        dataset=draw_pets(folder / "images", bird=RED, cat=GREEN, dog=BLUE),
        image_size=8,
        batch_size=8,
        learning_rate=0.02,
        steps=60,
    )
    result = loop.train(config, folder / "run", devices=jax.devices()[:1])
    assert result.evaluation["top1_error"] == 0
    return folder / "run"


def evaluate(network, dataset, **kwargs):
    dataset = trained.labelled(network, datasets.load(dataset, "test"), **kwargs)
    evaluator = evaluation.create_evaluator(
        network.model,
        dataset,
        network.preprocessing,
        mean=network.mean,
        std=network.std,
        devices=jax.devices()[:1],
    )
    return evaluator(network.variables)


def test_a_part_of_the_classes_is_evaluated_by_name(pets, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path, cat=GREEN, dog=BLUE)
    metrics = evaluate(trained.from_workdir(pets), dataset)
    assert metrics["top1_error"] == 0
    assert metrics["class_names"] == ["bird", "cat", "dog"]
    assert metrics["confusion"] == [[0, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert metrics["per_class_accuracy"] == {"bird": None, "cat": 1, "dog": 1}


def test_a_network_may_answer_classes_that_the_data_lacks(pets, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path, cat=GREEN, dog=RED)
    metrics = evaluate(trained.from_workdir(pets), dataset)
    assert metrics["confusion"] == [[0, 0, 0], [0, 2, 0], [2, 0, 0]]
    assert metrics["top1_error"] == 0.5


def test_classes_that_the_network_does_not_know_are_one_error(pets, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path, cat=GREEN, fox=RED)
    with pytest.raises(UsageError, match=r"not those of .*run: 'fox' \(1 of 2\) unknown"):
        evaluate(trained.from_workdir(pets), dataset)


def test_a_class_renamed_after_training_is_one_error(pets, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path, bird=RED, dog=BLUE, kitten=GREEN)
    with pytest.raises(UsageError, match=r"'kitten' \(1 of 3\) unknown; 'cat' \(1 of 3\) missing"):
        evaluate(trained.from_workdir(pets), dataset)


def test_classes_called_by_numbers_alone_are_matched_by_number_and_told(pets, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path, **{"0": RED, "1": GREEN, "2": BLUE})
    said = []
    assert evaluate(trained.from_workdir(pets), dataset, warn=said.append)["top1_error"] == 0
    assert "matched by number" in said[0]


@pytest.fixture
def weights(pets):
    """The same network as from a file whose classes are known, in an order of its own."""
    network, order = trained.from_workdir(pets), [2, 0, 1]
    params = dict(network.variables["params"])
    params["head"] = {name: leaf[..., order] for name, leaf in params["head"].items()}
    return network._replace(
        variables=network.variables | {"params": params},
        class_names=("dog", "bird", "cat"),
        source={"weights": "pets.safetensors"},
        config=None,
    )


def test_a_weights_file_with_known_classes_is_evaluated_by_name(pets, weights, draw_pets, tmp_path):
    own = trained.from_workdir(pets).config.dataset
    assert evaluate(weights, own)["top1_error"] == 0
    assert evaluate(weights, draw_pets(tmp_path, cat=GREEN, dog=BLUE))["top1_error"] == 0
    called = [("canis", "avis", "felis")]
    latin = draw_pets(tmp_path / "latin", avis=RED, felis=GREEN)
    metrics = evaluate(weights._replace(other_names=called), latin)
    assert metrics["top1_error"] == 0
    assert metrics["class_names"] == ["dog", "bird", "cat"]


def test_some_of_the_classes_that_nobody_names_are_refused(weights, draw_pets, tmp_path):
    dataset = draw_pets(tmp_path, cat=GREEN, dog=BLUE)
    with pytest.raises(UsageError, match=r"has 2 classes, .* tells 3 apart and does not name them"):
        evaluate(weights._replace(class_names=()), dataset)


def test_more_classes_than_the_network_has_are_refused(pets):
    network = trained.from_workdir(pets)
    dataset = datasets.load(network.config.dataset, "test")
    with pytest.raises(UsageError, match="has 3 classes, lenet5 tells 2 apart"):
        evaluation.create_evaluator(
            create_model("lenet5", 2), dataset, network.preprocessing, devices=jax.devices()[:1]
        )


def test_as_many_names_as_classes(tmp_path):
    model = create_model("lenet5", 3)
    images = jax.ShapeDtypeStruct((1, 32, 32, 1), np.float32)
    save_weights("lenet5", model.init(jax.random.key(0), images), tmp_path / "w", num_classes=3)
    network = trained.from_weights("lenet5", tmp_path / "w", class_names=("a", "b", "c"))
    assert (network.model.num_classes, network.class_names) == (3, ("a", "b", "c"))
    with pytest.raises(UsageError, match="2 class names are given for 3 classes"):
        trained.from_weights("lenet5", tmp_path / "w", 3, class_names=("a", "b"))


@pytest.mark.parametrize("attack", [(), ("--attack=fgsm", "--eps=1/255", "--epsilons=1/255")])
def test_evaluate_counts_a_part_of_the_classes_by_name(pets, draw_pets, tmp_path, attack):
    dataset = draw_pets(tmp_path, cat=GREEN, dog=BLUE)
    done = run_command("evaluate", f"--workdir={pets}", f"--dataset={dataset}", *attack)
    assert done.returncode == 0, done.stderr
    results = json.loads((pets / "results.json").read_text())
    assert (results["examples"], results["top1_error"]) == (4, 0)
    if attack:
        attacked = results["under_attack"]
        assert attacked["clean_accuracy"] == 1
        assert attacked["attacks"]["fgsm"]["robust_accuracy"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate",),
        ("evaluate", "--attack=fgsm"),
        ("adversarial",),
        ("universal_perturbation",),
        ("saliency",),
        ("occlusion",),
        ("faithfulness",),
        ("fooling",),
    ],
)
def test_every_command_refuses_classes_that_the_network_does_not_know(
    pets, draw_pets, tmp_path, command
):
    dataset = draw_pets(tmp_path / "images", cat=GREEN, fox=RED)
    before = {file: file.stat().st_mtime_ns for file in pets.rglob("*")}
    done = run_command(*command, f"--workdir={pets}", f"--dataset={dataset}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the classes of folder:")
    assert "'fox' (1 of 2) unknown" in done.stderr
    assert done.stderr.count("\n") == 1
    assert before == {file: file.stat().st_mtime_ns for file in pets.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "flags"),
    [("activations", ("--gallery=8",)), ("embedding", ("--gallery=8",))],
)
def test_what_looks_at_features_alone_takes_images_of_any_classes(
    pets, draw_pets, tmp_path, command, flags
):
    dataset = draw_pets(tmp_path / "images", count=20, cat=GREEN, fox=RED)
    flags = (f"--workdir={pets}", f"--dataset={dataset}", f"--output={tmp_path}/out", *flags)
    done = run_command(command, *flags)
    assert done.returncode == 0, done.stderr
