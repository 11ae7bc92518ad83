"""experiments.localize as its users run it, on a few of the drawn shapes."""

import json

import pytest

from tests.command import run_command

TINY = [
    "--image_size=32",
    "--train_split=train[:32]",
    "--eval_split=test[:12]",
    "--batch_size=8",
    "--steps=4",
    "--checkpoint_every=2",
    "--pictures=3",
]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("class_specific", [True, False])
def test_a_run_leaves_ilsvrcs_errors_pictures_and_a_page(class_specific, tmp_path):
    options = f"features=4, stage_sizes=(1, 1, 1, 1), class_specific={class_specific}"
    finished = run_command("localize", *TINY, f"--model_options={options}", f"--workdir={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    evaluation = results["evaluation"]
    assert results["step"] == 4
    assert evaluation["examples"] == 12
    # a place is right only where the class is too, and five guesses miss no more than one
    assert evaluation["top1_error"] <= evaluation["top1_localization_error"] <= 1
    assert evaluation["top5_localization_error"] <= evaluation["top1_localization_error"]
    assert (tmp_path / "boxes.png").stat().st_size > 0
    assert 'src="http' not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=resnet20"], "resnet20 is a classification network"),
        (["--label_smoothing=0.1"], "--label_smoothing is not for localization; leave it out"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, flags, message):
    finished = run_command("localize", *flags, f"--workdir={tmp_path}/run")
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr
