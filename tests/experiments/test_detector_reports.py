"""detect and compare_detectors keep a finished training, whatever fails after it.

The step of the training is replaced, as it takes minutes to compile; everything else runs.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import coco_folders
from tests.data.coco_folders import content

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LOSSES = {"loss": 1.5, "gradient_norm": 2.0, "learning_rate": 0.1}

# the detector that has "learnt" finds one box of class 1 in every image
BEFORE = f"""
import numpy as np
from absl import flags
import experiments.NAME as command
from cnn_jax import detection_evaluation
from cnn_jax.data import proposals
from cnn_jax.models.faster_rcnn import Detections
from cnn_jax.training import detector, loop
from cnn_jax.training import rcnn as rcnn_training
from experiments import app

def create_train_step(*args):
    return lambda state, batch: (state._replace(step=state.step + 1), {LOSSES})

def create_detector(*args):
    def detect(learnt, batch):
        n = len(batch["image"])
        box = np.tile(np.float32([5, 8, 20, 25]), (n, 1, 1))
        one = np.ones((n, 1))
        return Detections(box, 0.9 * one, one.astype(int), one > 0, np.ones(n, bool))
    return detect

def broken(*args, **options):
    raise RuntimeError("no\\nmemory left")

loop.create_train_step, detector.create_detector = create_train_step, create_detector
rcnn_training.create_detector = create_detector
rcnn_training.fit = lambda *args: None
rcnn_training.save = lambda *args: None
rcnn_training.load = lambda *args: None
box = np.float32([[5, 8, 20, 25]])
proposals.of_split = lambda dataset, **options: [box] * len(dataset.source)
proposals.selective_search = lambda image: box
CHANGE
app.run(command.main)
"""


def run(name, workdir, folder, change="", *flags):
    script = BEFORE.replace("NAME", name).replace("CHANGE", change)
    given = [f"--dataset=coco:{folder}", f"--workdir={workdir}", "--image_size=64", "--steps=2"]
    command = [sys.executable, "-c", script, *given, *flags]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    results = workdir / "results.json"
    return finished, json.loads(results.read_text()) if results.exists() else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco_folders.as_roboflow(tmp_path_factory.mktemp("data"), content(4), content(3))


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Its evaluation split has no object."""
    none = content(3) | {"annotations": []}
    return coco_folders.as_roboflow(tmp_path_factory.mktemp("data"), content(4), none)


BOXES = "--recipe=fasterrcnn_shapes"


def test_a_class_with_dollars_is_drawn_and_the_report_whole(folder, tmp_path):
    finished, results = run("detect", tmp_path / "run", folder, "", BOXES)
    assert finished.returncode == 0, finished.stderr
    assert "failed" not in finished.stderr
    assert results["losses"]["loss"] == 1.5
    assert set(results["box_ap50"]["per_class"]) == set(coco_folders.CLASSES)
    assert (tmp_path / "run/detections.png").stat().st_size > 0
    assert "ca$$h" in (tmp_path / "run/report.html").read_text()
    assert json.loads((tmp_path / "run/config.json").read_text())["max_objects"] == 3


def test_an_evaluation_split_without_objects_has_a_report(empty, tmp_path):
    finished, results = run("detect", tmp_path / "run", empty, "", BOXES)
    assert finished.returncode == 0, finished.stderr
    assert "3 images, box AP50 undefined (no objects)" in finished.stdout
    assert results["box_ap50"]["map"] is None
    assert set(results["box_coco"].values()) == {None}
    assert (tmp_path / "run/detections.png").stat().st_size > 0
    assert "undefined (no objects)" in (tmp_path / "run/report.html").read_text()


def test_an_evaluation_that_fails_loses_no_training(folder, tmp_path):
    change = "detection_evaluation.evaluate = broken"
    finished, results = run("detect", tmp_path / "run", folder, change, BOXES)
    assert finished.returncode == 1
    assert "the evaluation of step 2 failed: RuntimeError: no memory left\n" in finished.stderr
    assert (results["step"], results["losses"]["loss"]) == (2, 1.5)
    assert "Configuration" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize("which", ["folder", "empty"])
def test_a_comparison_has_a_report_with_and_without_objects(which, request, tmp_path):
    data = request.getfixturevalue(which)
    finished, results = run("compare_detectors", tmp_path / "run", data)
    assert finished.returncode == 0, finished.stderr
    assert "failed" not in finished.stderr
    assert list(results["detectors"]) == ["R-CNN", "Fast R-CNN", "Faster R-CNN"]
    assert results["proposals"]["images"] == results["images"] == 3
    nothing = which == "empty"
    assert (results["proposals"]["recall_at_50"] is None) == nothing
    assert all((own["ap50"] is None) == nothing for own in results["detectors"].values())
    assert ("AP50 undefined (no objects)" in finished.stdout) == nothing
    assert (tmp_path / "run/boxes.png").stat().st_size > 0
    assert "Precision and time" in (tmp_path / "run/report.html").read_text()


def test_a_comparison_keeps_what_could_be_measured(folder, tmp_path):
    change = """
measure = command.evaluate
command.evaluate = lambda one, *args: (broken if one.title == "R-CNN" else measure)(one, *args)
command.search_results = broken
"""
    finished, results = run("compare_detectors", tmp_path / "run", folder, change)
    assert finished.returncode == 0, finished.stderr
    told = [line for line in finished.stderr.splitlines() if "failed" in line]
    assert told == [
        "measuring selective search failed: RuntimeError: no memory left",
        "evaluating R-CNN failed: RuntimeError: no memory left",
    ]
    detectors = results["detectors"]
    assert {title: "ap50" in own for title, own in detectors.items()} == {
        "R-CNN": False,
        "Fast R-CNN": True,
        "Faster R-CNN": True,
    }
    assert detectors["R-CNN"]["losses"]["loss"] == 1.5
    assert detectors["Fast R-CNN"]["seconds_per_image_with_proposals"] is None
    assert (tmp_path / "run/boxes.png").stat().st_size > 0
