"""Classes by name: a data set's labels in the numbers by which a network knows its classes.

Labels and outputs are numbers, and what they mean is in the names. Wherever a network with class
names meets data with class names, `matched` compares them; what is counted and reported afterwards
speaks of the network's classes, in the network's order, for it may answer any of them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError, unknown

Names = Sequence[str]


def are_numbers(names: Names) -> bool:
    """Return whether the classes are called 0, 1, 2, ..., as those of a data set without names."""
    names = [name for name in names if name != "background"]
    return names == [str(i) for i in range(len(names))]


def numbers_among(names: Names, known: Names) -> list[int | None]:
    """Return the place of each name among the known ones; None where it is not there, or twice.

    Where all names are whole numbers, 007 is 7.
    """
    if _all_numeric(names, known):
        names, known = ([str(int(name)) for name in each] for each in (names, known))
    times = Counter(known)
    places = {name: place for place, name in enumerate(known) if times[name] == 1}
    return [places.get(name) for name in names]


def _all_numeric(*lists: Names) -> bool:
    return all(name.isdecimal() for names in lists for name in names)


def matched(
    dataset: Dataset,
    known: Names,
    owner: str,
    *,
    other_names: Sequence[Names] = (),
    whole: bool = False,
    first: int = 0,
    warn: Callable[[str], None] = logging.warning,
) -> Dataset:
    """Return the data set with its labels in the numbers of the known classes, under their names.

    Classes of the same names are the same, in whatever order and however many of the known ones
    the data set has. Where one side merely numbers as many classes as the other names, they are
    matched by number, and `warn` is told so.

    Args:
      known: the names, in the order of their numbers; () if nobody knows: nothing is compared.
      owner: whose classes they are, for messages, such as "the run in runs/birds".
      other_names: each the same classes in the same order under other names, which do as well.
      whole: whether the data set must have all of the known classes.
      first: the class that the label 0 of the data set's examples means: 1 where class_names begin
        with a background that no example is labelled with.

    Raises:
      UsageError: the classes differ; the message names them.
    """
    names, known = tuple(dataset.class_names), tuple(known)
    if not known or names == known:
        return dataset
    by_name = [numbers_among(names, each) for each in (known, *other_names)]
    numbers = min(by_name, key=lambda numbers: numbers.count(None))
    one_has_names = are_numbers(names) != are_numbers(known) and not _all_numeric(names, known)
    if None in numbers and one_has_names and len(names) == len(known):
        numbers = list(range(len(known)))
        one, other = (dataset.name, owner) if are_numbers(names) else (owner, dataset.name)
        warn(f"{one} only numbers its classes, {other} names them: they are matched by number")
    absent = [name for number, name in enumerate(known) if number not in numbers]
    if None in numbers or (whole and absent):
        strange = [name for name, number in zip(names, numbers, strict=True) if number is None]
        raise UsageError(
            f"the classes of {dataset.name} are not those of {owner}: "
            f"{_counted(strange, names, 'unknown')}{_counted(absent, known, 'missing')}"
            "give the same classes the same names, or leave out what is unknown"
        )
    dataset = dataset._replace(num_classes=len(known), class_names=known)
    if numbers == list(range(len(numbers))):
        return dataset
    of_labels = [number - first for number in numbers[first:]]
    return dataset._replace(source=Relabelled(dataset.source, of_labels))


def _counted(some: Names, of: Names, kind: str) -> str:
    if not some:
        return ""
    named = ", ".join(map(repr, some[:5])) + (", ..." if len(some) > 5 else "")
    return f"{named} ({len(some)} of {len(of)}) {kind}; "


class Relabelled:
    """source[i] whose labels, its objects' labels and its mask's values k are numbers[k].

    Values that are no class, such as those of pixels to ignore, stay.
    """

    def __init__(self, source: Sequence, numbers: Sequence[int]):
        self._source, self._numbers = source, np.asarray(numbers)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        example = dict(self._source[index])
        for name in {"label", "mask"} & example.keys():
            example[name] = self._renumbered(example[name])
        if "objects" in example:
            labels = self._renumbered(example["objects"]["label"])
            example["objects"] = {**example["objects"], "label": labels}
        return example

    @property
    def labels(self) -> list[int]:
        """Every example's label, of a source that knows them without reading."""
        return self._renumbered(self._source.labels).tolist()

    def __getattr__(self, name: str) -> Any:
        """What else the source knows of its examples, such as its most_objects."""
        if name.startswith("_"):  # an unpickled one has no source yet
            raise AttributeError(name)
        return getattr(self._source, name)

    def _renumbered(self, values: Any) -> np.ndarray:
        values = np.asarray(values)
        is_class = (values >= 0) & (values < len(self._numbers))
        new = np.where(is_class, self._numbers[np.where(is_class, values, 0)], values)
        return new.astype(values.dtype)


def class_number(text: str, class_names: Names) -> int:
    """Return the number of the class of this name, in any case of letters, or of this number.

    Raises:
      UsageError: there is none; the message suggests near names.
    """
    if text in class_names:
        return list(class_names).index(text)
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    if text.lstrip("-").isdecimal():
        raise UsageError(f"unknown class {text!r}; numbers go from 0 to {len(class_names) - 1}")
    alike = [i for i, name in enumerate(class_names) if name.lower() == text.lower()]
    if len(alike) != 1:
        raise unknown("class", text, class_names)
    return alike[0]
