"""The experiments that look into a trained network, on one that is trained for two steps."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import save_weights, trained
from cnn_jax.reports import looking_inside, real_photographs
from tests.models.tracing import drawn, variables

REPOSITORY = Path(__file__).parents[2]


def start(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


def results(name, run, *arguments):
    """Run the experiment and return its results."""
    done = start(name, f"--workdir={run}", f"--output={run / name}", *arguments)
    assert done.returncode == 0, done.stderr
    page = (run / name / "report.html").read_text()
    assert page.count("data:image/png") >= 1
    assert "Configuration" in page
    found = json.loads((run / name / "results.json").read_text())
    sha256 = trained.from_workdir(run).source["parameters_sha256"]
    assert found["source"]["parameters_sha256"] == sha256
    return found


@pytest.mark.slow
def test_photographs_are_explained_and_taken_for_another_class(run, tmp_path):
    network = trained.from_workdir(run)
    numbers, section = real_photographs.section(
        network, tmp_path, jax.random.key(0), target="3", steps=2
    )
    assert list(numbers["classes"]) == ["chelsea", "coffee", "grace_hopper", "flower", "china"]
    assert set(numbers["classes"].values()) <= set("0123456789")
    assert 0 <= numbers["taken for 3"] <= 5
    assert "Rachel Michetti, CC0" in section
    assert (tmp_path / "photographs.png").stat().st_size > 0


@pytest.mark.slow
def test_the_demos_sections_hold_a_picture_and_numbers_of_each_technique(run, tmp_path):
    network = trained.from_workdir(run)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(40, 16, 16, 1)).astype(np.float32)
    names = tuple(map(str, range(10)))
    found, sections = looking_inside.sections(
        network, images, np.arange(40) % 10, names, tmp_path, jax.random.key(0), shown=2
    )
    assert list(found) == [
        "filters",
        "activations",
        "patches",
        "embedding",
        "maps",
        "occlusion",
        "judgement",
    ]
    assert len(sections) == len(found)
    assert set(found["maps"]["maps_sha256"]) >= {"saliency", "grad_cam", "rise"}
    judged = found["judgement"]["methods"]
    assert judged["edges"]["insensitive"]
    assert judged["edges"]["spearman"] == pytest.approx(1)
    for name in ("maps", "occlusion", "insertion", "tsne_points", "neighbours", "filters_conv1"):
        assert (tmp_path / f"{name}.png").exists()


@pytest.mark.slow
def test_filters_of_published_weights_need_no_images(tmp_path):
    weights = tmp_path / "lenet5.safetensors"
    save_weights("lenet5", drawn(variables("lenet5")), weights)
    given = ["--model=lenet5", f"--weights={weights}", f"--output={tmp_path / 'out'}"]
    done = start("filters", *given)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["layers"]["conv1"]["shape"] == [5, 5, 1, 6]
    done = start("filters", *given, "--dataset=digits")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown flag '--dataset'")


@pytest.mark.slow
def test_saliency_repeats_bit_for_bit(run):
    options = ["--examples=2", "--masks=20", "--samples=4", "--steps=4"]
    first = results("saliency", run, *options)
    assert len(first["maps_sha256"]) == 10
    assert first["refused"] == {}
    assert results("saliency", run, *options) == first


@pytest.mark.slow
def test_a_photograph_of_any_mode_and_size_is_explained(run, tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 50, 4), dtype=np.uint8), "RGBA")
    image.save(tmp_path / "photo.png")
    done = start(
        "saliency",
        f"--workdir={run}",
        f"--image={tmp_path / 'photo.png'}",
        "--methods=saliency,grad_cam",
        "--target=7",
        "--layer=relu1",
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["targets"] == [7]
    maps = np.load(tmp_path / "out" / "maps.npz")
    assert maps["grad_cam"].shape == (1, 16, 16)


@pytest.mark.slow
def test_neighbours_are_measured_in_both_spaces(run):
    found = results("embedding", run, "--gallery=60")
    assert found["images"] == 60
    assert set(found["recall"]) == {"features", "pixels"}
    assert 0.5 < found["recall"]["pixels"]["1"] <= found["recall"]["pixels"]["5"] <= 1
    assert sum(row["images"] for row in found["classes"]) == 60
    for space, recall in found["recall"].items():
        right = sum(row["images"] * row["recall@1"][space] for row in found["classes"])
        assert right / 60 == pytest.approx(recall["1"])


@pytest.mark.slow
def test_a_level_of_folders_names_the_classes_of_photographs(run, tmp_path):
    for level, place in enumerate(("apple/gala", "apple/fuji", "lemon", "kiwi/green/ripe")):
        (tmp_path / "fruit" / place).mkdir(parents=True)
        for i in range(3):
            grey = Image.new("L", (20, 20), 60 * level + i)
            grey.save(tmp_path / "fruit" / place / f"{i}.png")
    given = [f"--workdir={run}", f"--image={tmp_path / 'fruit'}", "--gallery=8"]

    def classes(name, *flags):
        done = start("embedding", *given, *flags, f"--output={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        rows = json.loads((tmp_path / name / "results.json").read_text())["classes"]
        return {row["class"]: row["images"] for row in rows}

    assert classes("own") == {"fuji": 2, "gala": 2, "lemon": 2, "ripe": 2}
    assert classes("first", "--class_level=1") == {"apple": 4, "kiwi": 2, "lemon": 2}
    assert set(classes("second", "--class_level=2")) == {"fuji", "gala", "green", "lemon"}
    file = tmp_path / "fruit/lemon/0.png"
    done = start("embedding", f"--workdir={run}", *4 * [f"--image={file}"], "--class_level=1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --class_level counts from a folder; give the one of ")
    done = start("embedding", f"--workdir={run}", "--class_level=1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --class_level goes with --image")


@pytest.mark.parametrize(
    ("experiment", "flags", "message"),
    [
        ("saliency", ["--methods=saliancy"], "unknown method 'saliancy'; did you mean 'saliency'"),
        ("occlusion", ["--target=11"], "unknown class '11'"),
        ("filters", ["--layer=conv9"], "unknown layer with filters 'conv9'; did you mean"),
        ("activations", ["--layer=fc2"], "layer 'fc2' has no rows and columns"),
    ],
)
@pytest.mark.slow
def test_what_does_not_fit_ends_with_a_line_that_helps(experiment, flags, message, run, tmp_path):
    done = start(experiment, f"--workdir={run}", f"--output={tmp_path / 'out'}", *flags)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", ["filters", "activations", "embedding", "saliency", "occlusion", "faithfulness"]
)
def test_an_experiment_says_in_its_docstring_how_to_run_it(name):
    source = (REPOSITORY / "experiments" / f"{name}.py").read_text()
    assert f"python -m experiments.{name} --workdir=" in source
    assert importlib.util.find_spec(f"experiments.{name}") is not None
