"""Processes that were started otherwise than process 0 are refused, in all of them."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import portpicker
import pytest
from jax._src import distributed

from cnn_jax.errors import UsageError
from cnn_jax.runtime import agreement

REPOSITORY = Path(__file__).parents[2]


class Store:
    """The distributed runtime's client, of processes that come one after the other."""

    def __init__(self):
        self.found = {}

    def key_value_set(self, key, value):
        self.found[key] = value

    def blocking_key_value_get(self, key, timeout):
        return self.found[key]

    def key_value_dir_get(self, place):
        return [(key, value) for key, value in self.found.items() if key.startswith(place)]

    def wait_at_barrier(self, name, timeout):
        pass


@pytest.fixture
def process(monkeypatch):
    """process(number, facts) checks the facts of this process, after those of the ones before."""
    store = Store()

    def check(number, facts):
        monkeypatch.setattr(distributed.global_state, "client", store)
        monkeypatch.setattr(distributed.global_state, "process_id", number)
        monkeypatch.setattr(agreement, "_meetings", itertools.count())
        monkeypatch.setattr(agreement.peers, "end_by_themselves", lambda: None)
        agreement.check(facts)

    return check


def test_one_process_agrees_with_itself(tmp_path):
    agreement.check({"--seed": "0"})
    agreement.check_shared(tmp_path / "missing")


def test_what_differs_is_named_with_the_process_and_both_values(process):
    for number in range(3):
        process(number, {"--seed": "0", "jax": "1", "data": "here"})
    with pytest.raises(UsageError) as error:
        process(3, {"--seed": "1", "jax": "1", "libtpu": "2", "data": "here"})
    line = str(error.value)
    assert line.startswith("process 3 (")
    assert ") differs from process 0 (" in line
    assert "): --seed is 1, not 0; libtpu is 2, not None; give all the same command" in line


def test_versions_tell_jax_and_a_change_of_the_code(monkeypatch, tmp_path):
    (tmp_path / "__init__.py").write_text("")
    before = agreement.versions()
    assert before["jax"] == jax.__version__
    monkeypatch.setattr(agreement.cnn_jax, "__file__", os.fspath(tmp_path / "__init__.py"))
    other = agreement.versions()
    (tmp_path / "more.py").write_text("")
    assert len({found["cnn_jax"] for found in (before, other, agreement.versions())}) == 3


WORK = """
import json, sys
import jax
from cnn_jax.errors import UsageError
from cnn_jax.runtime import agreement
port, number, folder, facts = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(number))
for each in (lambda: agreement.check_shared(folder), lambda: agreement.check(json.loads(facts))):
    try:
        each()
        print("agreed")
    except UsageError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_two_processes_agree_or_say_the_same(tmp_path, same):
    """Of a folder that both see, and of the facts."""
    port = str(portpicker.pick_unused_port())
    folders = [tmp_path, tmp_path if same else tmp_path / "elsewhere"]
    facts = [{"steps": 1}, {"steps": 1 if same else 2}]
    environment = os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)}
    both = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", WORK, port, str(number), folder, json.dumps(own)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, (folder, own) in enumerate(zip(folders, facts, strict=True))
    ]
    told = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert list(tmp_path.iterdir()) == []
    for (of_folder, of_facts), folder in zip(told, folders, strict=True):
        if same:
            assert of_folder == of_facts == "agreed"
        else:
            assert of_folder.startswith("process 1 (")
            assert of_folder.endswith(f"{folder} has to lie on a disk that all see")
            assert "steps is 2, not 1; give all the same command" in of_facts
