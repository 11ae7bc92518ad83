"""Parts of a split in TFDS's notation: "train[:90%]", "train[1000:]", "train+test"."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.errors import UsageError


def unreadable(split: str, error: Exception) -> UsageError:
    """Return what to say of a split that TFDS refuses."""
    beyond = re.search(r"incompatible with (\d+) examples", str(error))
    if beyond:
        return UsageError(f"{split!r} reaches beyond the {beyond[1]} examples of its split")
    return UsageError(
        f"cannot read the split {split!r}; write it as train, train[:90%] or train[1000:]"
    )


def of_split(split: str, lengths: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the examples of a slice, each as the name of its split and its number there.

    Args:
      lengths: the number of examples of every split that may be named.

    Raises:
      UsageError: no such notation, or another split.
    """
    from tensorflow_datasets.core import splits  # takes two seconds

    infos = {
        name: splits.SplitInfo(name=name, shard_lengths=[length], num_bytes=0)
        for name, length in lengths.items()
    }
    try:
        parts = splits.ReadInstruction.from_spec(split).to_absolute(infos)
    except (ValueError, KeyError, AssertionError) as error:
        raise unreadable(split, error) from error
    return [
        (part.splitname, i)
        for part in parts
        for i in range(lengths[part.splitname])[part.from_ : part.to]
    ]


class Part:
    """The examples of a source that have these numbers, in this order."""

    def __init__(self, source: Sequence[Any], numbers: Sequence[int]):
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Any:
        return self._source[self._numbers[index]]
