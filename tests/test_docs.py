"""What README and documents say is true: examples run, commands, flags, names and links exist."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cnn_jax.__main__ import commands
from cnn_jax.models import registry

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "docs/guides").glob("*.md")),
    *sorted((REPOSITORY / "docs/results").glob("*.md")),
]
COMMAND = re.compile(
    r"(?:\./launch\.sh|cnn-jax)(?: --processes=\d+)? ([a-z]\w*)((?:\s+--[^\s`#)]+)*)"
)
LAUNCHER = {"setup", "test", "docs", "lock"}


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def needs_training(page: Path) -> bool:
    return any("runs/" in example for example in examples(page))


WITH_EXAMPLES = [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.large] * needs_training(page))
    for page in PAGES
    if examples(page) and page.name != "export.md"  # without this project: tests/export
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder in which runs/digits and runs/detect are runs of a step by the commands."""
    folder = tmp_path_factory.mktemp("documents")
    trainings = (
        ["train", "--recipe=digits", "--workdir=runs/digits"],
        ["detect", "--workdir=runs/detect", "--train_split=train[:8]", "--eval_split=test[:4]"],
    )
    for name, *flags in trainings:
        subprocess.run(
            [sys.executable, "-P", "-m", f"experiments.{name}", *flags, "--steps=1"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            check=True,
        )
    return folder


@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, request):
    trains = needs_training(page)
    # what an example registers ends with it
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    monkeypatch.chdir(request.getfixturevalue("runs") if trains else tmp_path)
    known = {}
    for number, example in enumerate(examples(page), 1):
        exec(compile(example, f"{name_of(page)}, example {number}", "exec"), known)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_and_flags_of_a_page_exist(page, command_helps):
    faults = []
    for command, given in COMMAND.findall(page.read_text()):
        if command in LAUNCHER:
            continue
        if command not in command_helps:
            faults.append(command)
            continue
        for flag in re.findall(r"--(\w+)", given):
            if flag not in command_helps[command]:
                faults.append(f"{command} --{flag}")
    assert faults == []


def test_every_command_is_in_the_documents():
    text = "\n".join(page.read_text() for page in PAGES)
    named = {command for command, _ in COMMAND.findall(text)}
    assert set(commands()) - named == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_names_of_a_page_exist(page):
    missing = []
    for name in set(re.findall(r"`~?(cnn_jax(?:\.\w+)+)(?:\(.*\))?`", page.read_text())):
        try:
            resolve(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert missing == []


def resolve(name: str):
    """The module or the value of a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        place, _, attribute = name.rpartition(".")
        return getattr(resolve(place), attribute)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    links = [link for link in links if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_models_of_a_page_are_registered():
    import cnn_jax

    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"--model=([a-z]\w*)(?![\w.:])", text))
    assert named - set(cnn_jax.model_names()) == set()


def test_the_hooks_are_of_the_locks_ruff():
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    lock = (REPOSITORY / "requirements/cpu.txt").read_text()
    (version,) = re.findall(r"^ruff==(\S+)", lock, flags=re.M)
    assert f"rev: v{version}\n" in hooks


def test_the_version_is_one():
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"\n## {version}\n" in (REPOSITORY / "CHANGELOG.md").read_text()
