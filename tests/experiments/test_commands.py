"""Every command can be imported, and its help speaks in whole sentences."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax.__main__ import commands

REPOSITORY = Path(__file__).parents[2]

# One process for all, as JAX takes seconds to import; what a command defines is undone behind it.
COLLECT = """
import importlib, json, sys
from absl import flags
from experiments import app

values = flags.FLAGS
shared, helps = set(values), {}
for name in sys.argv[1:]:
    module = importlib.import_module(f"experiments.{name}")
    assert callable(module.main), f"{name} has no main"
    # those of libraries that it imports belong to their modules
    defined = {
        flag.name: flag.help
        for place, those in values.flags_by_module_dict().items()
        for flag in those
        if "." not in place or place.startswith("experiments.")
    }
    helps[name] = defined
    for flag in set(values) - shared:
        delattr(values, flag)
print(json.dumps(helps))
"""


@pytest.fixture(scope="module")
def helps():
    """The help text of every flag of every command: command -> flag -> text."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", COLLECT, *commands()],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_command_is_imported_and_defines_its_flags(helps):
    assert list(helps) == list(commands())
    assert {"train", "evaluate", "demo"} <= set(helps)
    assert [name for name, flags in helps.items() if not flags.keys() - {"process_id"}] == []


def test_every_flag_is_explained_in_a_whole_sentence(helps):
    faults = [
        f"{command} --{flag}: {text}"
        for command, flags in helps.items()
        for flag, text in flags.items()
        if not is_sentence(text)
    ]
    assert faults == []


@pytest.mark.parametrize(
    "text", ["Sizes.", "Of a zoom movie.", "number of image scales.", "The la"]
)
def test_what_is_no_sentence_is_found(text):
    assert not is_sentence(text)


def is_sentence(text: str) -> bool:
    # absl puts an enumeration's values before the help and a remark on repetition after it
    text = re.sub(r"^<[^>]*>: |;\s+repeat this option.*$", "", " ".join(text.split()))
    return (
        text[:1].isupper() and text.endswith(".") and len(text.split()) >= 3 and text[:3] != "Of "
    )
