"""The names of well-known data sets' classes, in the order of published networks' outputs."""

import functools
import importlib.resources

LISTS = ("imagenet", "imagenet_wordnet", "coco", "voc")


@functools.cache
def named(name: str) -> tuple[str, ...]:
    """Return the names of a list of LISTS.

    imagenet has 1,000; imagenet_wordnet their WordNet numbers (n01440764), as folders and TFDS call
    them; coco has COCO's 91 numbers, of which 80 are used and 0 is the background; voc has
    PASCAL VOC's 20 after the background.
    """
    folder = importlib.resources.files(__name__)
    return tuple((folder / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def other_names(name: str) -> tuple[tuple[str, ...], ...]:
    """Return further lists of the same classes in the same order."""
    return (named("imagenet_wordnet"),) if name == "imagenet" else ()
