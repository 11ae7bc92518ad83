"""A report that fails in part keeps the rest, and never the run's results."""

import json

import numpy as np
import pytest
from matplotlib.text import Text

from cnn_jax.reports import figures, html, mask_figures, parts
from cnn_jax.reports import training as training_report
from cnn_jax.training.loop import Result
from cnn_jax.workdir import open_workdir

NAMES = ("ca$$h", "$x^2$", "_under", "50 % $")
RESULT = Result(
    step=8,
    loss=0.5,
    images_per_second=None,
    parameters_sha256="0" * 64,
    evaluation={
        "examples": 4,
        "loss": 0.3,
        "top1_error": 0.25,
        "top5_error": 0.0,
        "per_class_accuracy": dict(zip(NAMES, (1.0, 0.0, None, 1.0), strict=True)),
        "class_names": list(NAMES),
        "confusion": np.eye(4, dtype=int).tolist(),
    },
)


@pytest.fixture
def workdir(tmp_path):
    return open_workdir(tmp_path / "run", {"model": "lenet5", "dataset": "folder:photos"})


@pytest.mark.parametrize(
    "figure",
    [
        lambda: figures.confusion_matrix(np.eye(4, dtype=int), NAMES),
        lambda: figures.accuracy_by_class(dict.fromkeys(NAMES, 0.5)),
        lambda: figures.image_grid([np.zeros((4, 4, 3))] * 4, NAMES),
        lambda: figures.labelled_grid([[np.zeros((4, 4, 3))] * 4], NAMES, [NAMES]),
        lambda: mask_figures.masks_over_images(
            [np.zeros((4, 4, 3), np.uint8)], *[[np.zeros((4, 4), int)]] * 2, NAMES
        ),
    ],
)
def test_dollars_in_names_are_drawn_as_they_are(figure):
    drawn = figure()
    html.figure_png(drawn)
    texts = [text for text in drawn.findobj(Text) if text.get_text() in NAMES]
    assert len({text.get_text() for text in texts}) == 4
    assert not any(text.get_parse_math() for text in texts)


def test_powers_of_ten_at_an_axis_are_still_formulas():
    drawn = figures.accuracy_by_class({"a": 0.5})
    drawn.axes[0].set_xscale("log")
    html.figure_png(drawn)
    assert any(label.get_parse_math() for label in drawn.axes[0].get_xticklabels())


def test_a_run_of_classes_with_dollars_has_its_report(workdir, capsys):
    training_report.write_training(str(workdir), RESULT)
    assert (workdir / "confusion.png").stat().st_size > 0
    assert (workdir / "accuracy_by_class.png").stat().st_size > 0
    assert "ca$$h" not in capsys.readouterr().err


def test_what_cannot_be_drawn_is_told_and_the_rest_is_kept(workdir, capsys, monkeypatch):
    def broken(*args):
        raise RuntimeError("no\nink")

    monkeypatch.setattr(figures, "confusion_matrix", broken)
    training_report.write_training(str(workdir), RESULT)
    assert capsys.readouterr().err == "drawing confusion.png failed: RuntimeError: no ink\n"
    results = json.loads((workdir / "results.json").read_text())
    assert results["evaluation"]["top1_error"] == 0.25
    page = (workdir / "report.html").read_text()
    assert "drawing confusion.png failed: RuntimeError: no ink" in page
    assert page.count("<img") == 1
    assert (workdir / "accuracy_by_class.png").exists()


def test_results_stay_when_no_page_can_be_written(workdir, capsys):
    (workdir / "report.html").mkdir()
    training_report.write_training(str(workdir), RESULT)
    assert json.loads((workdir / "results.json").read_text())["step"] == 8
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"writing {workdir}/report.html failed: IsADirectoryError")


def test_a_section_that_fails_is_one_that_says_so(capsys):
    assert parts.attempt("Sums", lambda a, b: [html.section("Sums", str(a + b))], 1, 2) == [
        html.section("Sums", "3")
    ]
    (section,) = parts.attempt("Sums", lambda: [1 / 0])
    assert "Sums failed: ZeroDivisionError" in section
    assert capsys.readouterr().err.startswith("Sums failed: ZeroDivisionError")
