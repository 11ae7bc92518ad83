"""The experiments that optimise an image, as their users run them, on a network of two steps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def start(name, *flags):
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def results(done, folder):
    """Return results.json of an experiment that must have succeeded, its page being whole."""
    assert done.returncode == 0, done.stderr
    page = (folder / "report.html").read_text()
    assert page.count("<img ") >= 1
    assert 'src="http' not in page
    config = json.loads((folder / "config.json").read_text())
    assert len(config["source"]["parameters_sha256"]) == 64
    assert config["seed"] == 0
    return json.loads((folder / "results.json").read_text())


def test_feature_inversion_has_a_column_a_layer_and_repeats(run, tmp_path):
    flags = [f"--workdir={run}", "--examples=2", "--steps=12"]
    folders = [run / "feature_inversion", tmp_path / "again"]
    found, again = (
        results(start("feature_inversion", *flags, f"--output={folder}"), folder)
        for folder in folders
    )
    layers = [row["layer"] for row in found["layers"]]
    assert layers == ["conv1", "relu1", "pool1", "flatten", "fc2", "relu2", "head"]
    assert np.shape([row["error"] for row in found["layers"]]) == (7, 2)
    assert found["layers"] == again["layers"]
    with Image.open(folders[0] / "feature_inversion.png") as picture:
        assert picture.width > picture.height


def test_another_network_says_how_far_inversions_are_from_their_images(run, tmp_path):
    flags = [f"--workdir={run}", "--examples=2", "--layers=conv1,head", "--steps=40"]
    done = start("feature_inversion", *flags, f"--judge={run}", f"--output={tmp_path}")
    judge = results(done, tmp_path)["judge"]
    assert judge["model"] == "lenet5"
    assert judge["layers"] == ["relu1", "pool1"]
    assert list(judge["distance"]) == ["conv1", "head"]
    assert np.all(np.array(judge["distance"]["conv1"]) > 0)
    assert np.all(np.array(judge["distance"]["conv1"]) < judge["mean_color"])


def test_an_unknown_layer_is_an_error_of_use(run, tmp_path):
    output = tmp_path / "results"
    done = start("feature_inversion", f"--workdir={run}", "--layers=con1", f"--output={output}")
    assert done.returncode == 2
    assert not output.exists()
    assert "unknown layer 'con1'; did you mean 'conv1'" in done.stderr


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((56, 40)).save(file)
    return file


def test_ascent_raises_every_class(run):
    found = results(start("ascent", f"--workdir={run}", "--steps=40"), run / "ascent")
    assert found["targets"] == list(range(10))
    for way in found["ways"].values():
        assert np.all(np.array(way["score"]) > way["start"])


def test_a_dream_keeps_the_photographs_size_and_moves(run, photo):
    done = start(
        "dream", f"--workdir={run}", f"--image={photo}", "--layers=conv1", "--octaves=2",
        "--iterations=3", "--frames=3", "--tile=16", "--jitter=2",
    )  # fmt: skip
    found = results(done, run / "dream")
    assert found["objective_after"] > found["objective_before"]
    with Image.open(run / "dream" / "dream.png") as picture:
        assert picture.size == (56, 40)
    with Image.open(run / "dream" / "zoom.gif") as movie:
        assert movie.n_frames == 3
    assert len(list((run / "dream" / "frames").iterdir())) == 3


def test_style_lowers_the_gram_error(run, photo):
    done = start(
        "style", f"--workdir={run}", f"--image={photo}", f"--style={photo}", "--steps=8",
        "--content_layers=relu1", "--style_layers=relu1,pool1",
    )  # fmt: skip
    found = results(done, run / "style")
    assert set(found["gram_error"]) == {"relu1", "pool1"}
    assert (run / "style" / "result.png").exists()


def test_fooling_shows_three_ways_and_the_real_images(run):
    flags = [f"--workdir={run}", "--steps=20", "--generations=30", "--children=8"]
    told = results(start("fooling", *flags), run / "fooling")
    assert told["mutation"] == "pixels"
    assert "(--mutation=pixels)" in (run / "fooling" / "report.html").read_text()
    found = told["confidences"]
    assert list(found) == ["by gradient", "by evolution", "fantasy", "real images"]
    assert np.shape([found[way] for way in list(found)[:3]]) == (3, 10)


def test_fooling_makes_the_classes_that_are_named(run, tmp_path):
    flags = ["--target=7,2", "--steps=5", "--generations=5", "--children=4", "--mutation=squares"]
    found = results(start("fooling", f"--workdir={run}", f"--output={tmp_path}", *flags), tmp_path)
    assert found["targets"] == ["7", "2"]
    assert found["mutation"] == "squares"
    assert "(--mutation=squares)" in (tmp_path / "report.html").read_text()
    assert [len(values) for values in found["confidences"].values()][:3] == [2, 2, 2]


def test_another_network_says_what_it_sees_in_the_pictures_of_ascent(run, photo, tmp_path):
    flags = ["--steps=5", "--target=3,4,5", f"--photograph={photo}", f"--judge={run}"]
    found = results(start("ascent", f"--workdir={run}", f"--output={tmp_path}", *flags), tmp_path)
    assert list(found["ways"]) == ["from zeros", "spectrum", "photograph"]
    judge = found["judge"]
    assert judge["model"] == "lenet5"
    for way in found["ways"]:
        for row, own in zip(judge[way], "345", strict=True):
            assert 1 <= row["rank"] <= 10
            assert (row["rank"] == 1) == (row["best"] == own)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("ascent", ["--steps=5"]),
        ("fooling", ["--steps=5", "--generations=5", "--children=4"]),
        (
            "dream",
            ["--image={photo}", "--layers=conv1", "--octaves=2"]
            + ["--iterations=2", "--tile=16", "--jitter=2"],
        ),
        (
            "style",
            ["--image={photo}", "--style={photo}", "--steps=3"]
            + ["--content_layers=relu1", "--style_layers=relu1"],
        ),
    ],
)
def test_pictures_and_numbers_repeat_bit_for_bit(name, flags, run, photo, tmp_path):
    flags = [f"--workdir={run}", *(flag.format(photo=photo) for flag in flags)]
    folders = [tmp_path / "first", tmp_path / "second"]
    first, second = (results(start(name, *flags, f"--output={each}"), each) for each in folders)
    del first["seconds"], second["seconds"]
    assert first == second
    pictures = sorted(folders[0].glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.read_bytes() == (folders[1] / picture.name).read_bytes()


def test_what_is_missing_is_an_error_of_use(run, photo, tmp_path):
    for name, flags, message in (
        ("dream", [], "give --image=FILE once"),
        ("dream", [f"--image={photo}", "--layers=head"], "without height and width"),
        ("style", [f"--image={photo}"], "--style=FILE"),
        ("ascent", ["--target=11"], "unknown class '11'; numbers go from 0 to 9"),
    ):
        done = start(name, f"--workdir={run}", f"--output={tmp_path}/{name}", *flags)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
