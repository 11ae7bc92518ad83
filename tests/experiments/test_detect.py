"""experiments.detect and compare_detectors as their users run them, on a few drawn shapes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax import trained

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = [
    "--train_split=train[:8]",
    "--eval_split=test[:4]",
    "--image_size=64",
    "--steps=2",
]
TINY = [*DATA, "--pictures=2"]
DETECT = [*TINY, "--model=fasterrcnn_resnet10_fpn", "--batch_size=4", "--log_every=1"]
COMPARE = [*TINY, "--fitted_on=8", "--max_proposals=30"]


def run(name, *flags):
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def results_of(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A Faster R-CNN of two steps: its folder and what was printed."""
    workdir = tmp_path_factory.mktemp("runs") / "detect"
    finished = run("detect", *DETECT, f"--workdir={workdir}")
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
    finished = run(name, f"--workdir={tmp_path}/run", *given, *flags)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr


def test_three_detectors_are_compared_on_the_same_images(done, tmp_path):
    pytest.importorskip("cv2")
    faster, _ = done
    flags = (*COMPARE, f"--faster={faster}", f"--workdir={tmp_path}/run")
    finished = run("compare_detectors", *flags)
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
