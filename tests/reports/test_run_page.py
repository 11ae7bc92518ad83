"""The ending that every command's run has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax.reports import html, run_page
from cnn_jax.workdir import open_workdir

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return open_workdir(tmp_path / "run", {"model": "lenet5", "seed": 3})


def test_a_run_ends_with_its_results_and_a_page_that_says_how_it_was_made(folder, capsys):
    run_page.finish(folder, "A <title>", [html.section("Result", "All is well.")], {"loss": 0.5})
    assert json.loads((folder / "results.json").read_text()) == {"loss": 0.5}
    page = (folder / "report.html").read_text()
    for part in ("A &lt;title&gt;", "All is well.", "lenet5", "jax", "Python", "devices"):
        assert part in page
    assert capsys.readouterr().out == (
        f"results: {folder}/results.json  report: {folder}/report.html\n"
    )


def test_results_that_are_written_already_stay(folder):
    (folder / "results.json").write_text("{}")
    run_page.finish(folder, "Title", [])
    assert (folder / "results.json").read_text() == "{}"


def test_a_page_that_cannot_be_written_is_told_and_the_results_stay(folder, capsys):
    (folder / "report.html").mkdir()
    run_page.finish(folder, "Title", [], {"loss": 1})
    assert json.loads((folder / "results.json").read_text()) == {"loss": 1}
    assert "report.html failed: IsADirectoryError" in capsys.readouterr().err


def test_the_pages_of_one_run_link_to_each_other(folder):
    below = open_workdir(folder / "saliency", {})
    run_page.finish(below, "Saliency", [], {})
    run_page.finish(folder, "Run", [], {})
    run_page.finish(below, "Saliency", [], {})
    assert '<a href="saliency/report.html">saliency</a>' in (folder / "report.html").read_text()
    assert '<a href="../report.html">run</a>' in (below / "report.html").read_text()


def test_a_command_is_told_as_it_was_given(tmp_path):
    program = (
        "import runpy, sys; sys.argv = ['x', '--workdir=a b'];"
        "from cnn_jax.reports import run_page; import importlib.util;"
        "sys.modules['__main__'].__spec__ = importlib.util.find_spec('experiments.train');"
        "print(run_page.command())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout == "./launch.sh train '--workdir=a b'\n"
    assert run_page.command() is None  # of no command, as in a notebook


def test_one_place_writes_pages():
    writers = [
        str(file.relative_to(REPOSITORY))
        for folder in ("cnn_jax", "experiments")
        for file in (REPOSITORY / folder).rglob("*.py")
        if '"report.html").write_text' in file.read_text()
    ]
    assert writers == ["cnn_jax/reports/run_page.py"]
