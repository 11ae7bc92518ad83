"""Every command can be imported, and its help speaks in whole sentences."""

import re

import pytest

from cnn_jax.__main__ import commands


def test_every_command_is_imported_and_defines_its_flags(command_helps):
    assert list(command_helps) == list(commands())
    assert {"train", "evaluate", "demo"} <= set(command_helps)
    assert [
        name for name, flags in command_helps.items() if not flags.keys() - {"process_id"}
    ] == []


def test_every_flag_is_explained_in_a_whole_sentence(command_helps):
    faults = [
        f"{command} --{flag}: {text}"
        for command, flags in command_helps.items()
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
