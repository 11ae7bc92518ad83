"""experiments.detect and compare_detectors as their users run them, on a few drawn shapes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import object_detection, trained
from tests.command import run_command

pytestmark = pytest.mark.slow

DATA = [
    "--train_split=train[:8]",
    "--eval_split=test[:4]",
    "--image_size=64",
    "--steps=2",
]
TINY = [*DATA, "--pictures=2"]
DETECT = [*TINY, "--model=fasterrcnn_resnet10_fpn", "--batch_size=4", "--log_every=1"]
COMPARE = [*TINY, "--fitted_on=8", "--max_proposals=30"]


def results_of(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A Faster R-CNN of two steps: its folder and what was printed."""
    workdir = tmp_path_factory.mktemp("runs") / "detect"
    finished = run_command("detect", *DETECT, f"--workdir={workdir}")
    assert finished.returncode == 0, finished.stderr
    return workdir, finished.stdout


def test_a_detector_s_run_leaves_results_pictures_and_a_page(done):
    workdir, printed = done
    results = results_of(workdir)
    assert (results["step"], results["images"]) == (2, 4)
    assert set(results["losses"]) >= {"objectness", "rpn_box", "classifier", "box", "loss"}
    assert "mask_ap50" not in results
    sha = trained.from_workdir(workdir, task="detection").source["parameters_sha256"]
    assert results["parameters_sha256"] == sha
    assert 0 <= results["box_ap50"]["map"] <= 1
    assert f"box AP50 {results['box_ap50']['map']:.3f}" in printed
    for name in ("config.json", "detections.png", "training.png"):
        assert (workdir / name).stat().st_size > 0
    assert 'src="http' not in (workdir / "report.html").read_text()


def test_photographs_are_answered_with_boxes_in_their_own_pixels(done, two_photographs):
    workdir, _ = done
    finished = run_command("classify", two_photographs, f"--workdir={workdir}", "--least=0")
    assert finished.returncode == 0, finished.stderr
    folder = workdir / "classify"
    images = json.loads((folder / "results.json").read_text())["images"]
    network = trained.from_workdir(workdir, task="detection")
    for image, size in zip(images, [(30, 70), (60, 40)], strict=True):
        with Image.open(image["file"]) as file:
            (found,) = object_detection.detector(network)([np.asarray(file)])
        assert len(image["objects"]) == len(found.boxes) > 0
        for each, box, score in zip(image["objects"], found.boxes, found.scores, strict=True):
            assert each["box"] == pytest.approx(box.tolist(), abs=0.01)
            assert each["score"] == pytest.approx(float(score))
            assert max(each["box"][::2]) <= size[0]
    rows = (folder / "objects.csv").read_text().splitlines()
    assert rows[0] == "file,rank,name,index,score,x1,y1,x2,y2"
    assert len(rows) == 1 + sum(len(image["objects"]) for image in images)
    assert (folder / "report.html").read_text().count("<img") == 2


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("detect", ["--model=resnet20"], "resnet20 is a classification network; here a detection"),
        ("detect", ["--model=fastrcnn_resnet10"], "fastrcnn_resnet10 needs proposals"),
        ("detect", ["--max_objects=0"], "--max_objects=0 is too small; give 1 at least"),
        ("detect", ["--pictures=0"], "--pictures=0 is too few"),
        ("detect", ["--mixup=0.2"], "--mixup is not for detection; leave it out"),
        ("train", ["--max_objects=9"], "--max_objects is not for classification; leave it out"),
        ("compare_detectors", ["--max_proposals=0"], "--max_proposals=0 is too few"),
        ("compare_detectors", ["--faster=/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, name, flags, message):
    given = DATA if name == "train" else TINY
    finished = run_command(name, f"--workdir={tmp_path}/run", *given, *flags)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr


def test_three_detectors_are_compared_on_the_same_images(done, tmp_path):
    pytest.importorskip("cv2")
    faster, _ = done
    flags = (*COMPARE, f"--faster={faster}", f"--workdir={tmp_path}/run")
    finished = run_command("compare_detectors", *flags)
    assert finished.returncode == 0, finished.stderr
    results = results_of(tmp_path / "run")
    search, detectors = results["proposals"], results["detectors"]
    assert search["images"] == 4
    assert 0 < search["recall_at_50"] <= 1
    assert list(detectors) == ["R-CNN", "Fast R-CNN", "Faster R-CNN"]
    for title, own in detectors.items():
        outside = 0 if title == "Faster R-CNN" else search["seconds_per_image"]
        assert own["seconds_per_image_with_proposals"] == own["seconds_per_image"] + outside
        assert own["step"] == 2
        assert f"{title}: AP50 {own['ap50']:.3f}" in finished.stdout
    ours, theirs = detectors["Faster R-CNN"]["ap50"], results_of(faster)["box_ap50"]["map"]
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert (tmp_path / "run" / "boxes.png").stat().st_size > 0
    assert 'src="http' not in (tmp_path / "run" / "report.html").read_text()
