"""Small copies of free photographs: what commands look at where no image is named."""

from pathlib import Path
from typing import NamedTuple


class Photograph(NamedTuple):
    """A photograph of this folder, reduced to 448 pixels, and who is to be named beside it."""

    file: str
    author: str
    license: str
    source: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(__file__).parent / self.file


PHOTOGRAPHS = (
    Photograph("chelsea.jpg", "Stéfan van der Walt", "CC0", "scikit-image, chelsea.png"),
    Photograph("coffee.jpg", "Rachel Michetti", "CC0", "scikit-image, coffee.png"),
    Photograph(
        "grace_hopper.jpg", "James S. Davis, US Navy", "public domain", "matplotlib's sample data"
    ),
    Photograph(
        "flower.jpg", "vultilion", "CC BY 2.0", "https://www.flickr.com/photos/vultilion/6056698931"
    ),
    Photograph(
        *("china.jpg", "danielbuechele", "CC BY 2.0"),
        "https://www.flickr.com/photos/danielbuechele/6061409035",
    ),
)
STYLE = Photograph(
    *("hubble_deep_field.jpg", "NASA, ESA, the Hubble Space Telescope", "public domain"),
    "scikit-image, hubble_deep_field.jpg",
)
ELEPHANTS = Photograph(  # what the literature's attacks turn into a koala
    *("elephants.jpg", "Snapshot Serengeti", "CDLA-Permissive-1.0"),
    "https://lila.science/datasets/snapshot-serengeti",
)
EVERY = (*PHOTOGRAPHS, STYLE, ELEPHANTS)
