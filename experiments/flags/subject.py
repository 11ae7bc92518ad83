"""The trained network that an experiment looks into or attacks, and the images it does so with.

A command defines what it reads: all by `define`, or parts of it by the other functions.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from jaxtyping import Float, Int

from cnn_jax.data import (
    datasets,
    decoding,
    photographs,
    pipeline,
    preprocessing,
)
from cnn_jax.data.sample_photographs import PHOTOGRAPHS, Photograph
from cnn_jax.trained import Trained

from .. import app
from . import network as network_flags
from .network import load_dataset, load_network


def define() -> None:
    """Define the flags of `load`: a network, its images, and where the results go."""
    network_flags.define()
    network_flags.define_dataset()
    define_images()
    define_examples()
    define_output()


def define_images() -> None:
    """Define the flag that names image files."""
    flags.DEFINE_multi_string(
        "image",
        [],
        "Image file to look at, of any size and mode, or a folder or pattern (*.jpg) of such; "
        "without it, and without a data set or a run, the sample photographs.",
        module_name="Images",
    )


def define_examples() -> None:
    """Define the flag that says how many examples of the data set are taken."""
    flags.DEFINE_integer(
        "examples",
        8,
        "Number of examples of the data set to look at where no --image is given.",
        lower_bound=1,
        module_name="Images",
    )


def define_output() -> None:
    """Define the flags that say where the results go and what they are drawn from."""
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the results; by default one within the run's, named after the command.",
        module_name="What",
    )
    flags.DEFINE_integer(
        "seed", 0, "Seed of all random numbers of the command.", module_name="What"
    )


class Subject(NamedTuple):
    """A network, its images and the folder of the results.

    folder: exists and holds config.json.
    pixels: in 0..1, preprocessed to the size that the network was evaluated at.
    labels: in the network's numbers, or as `load` was told; None for the user's own images.
    names: a title for each image.
    class_names: of the network's outputs, numbers where they have no names.
    """

    network: Trained
    folder: Path
    pixels: Float[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"] | None
    names: tuple[str, ...]
    class_names: tuple[str, ...]


def load(
    name: str, *, answers: bool = True, samples: Sequence[Photograph] = PHOTOGRAPHS
) -> Subject:
    """Return what the flags of the experiment of this name ask for.

    Args:
      answers: as of load_dataset; without, labels are the data set's own.
      samples: what the images are where the flags name none, no data and no run.

    Raises:
      UsageError: flags that do not fit together, no such run, file or data set, an image that
        cannot be read, other classes than the network's, or a results folder that holds another
        configuration's.
    """
    network = load_network()
    files = image_files(network, samples)
    if files:
        pixels, labels = read_files(network, files), None
        names = tuple(Path(file).name for file in files)
        class_names = network.class_names
    else:
        dataset = load_dataset(network, answers=answers)
        pixels, labels = first_examples(network, dataset, flags.FLAGS.examples)
        class_names = network.class_names or dataset.class_names
        names = tuple(dataset.class_names[label] for label in labels)
    class_names += tuple(map(str, range(len(class_names), network.model.num_classes)))
    folder = open_folder(name, network, samples)
    return Subject(network, folder, pixels, labels, names, class_names)


def image_files(network: Trained, samples: Sequence[Photograph] = PHOTOGRAPHS) -> list[str]:
    """Return the files of --image, or without one and without data those of the samples."""
    dataset = flags.FLAGS["dataset"].value if "dataset" in flags.FLAGS else None
    if flags.FLAGS.image or dataset is not None or network.config is not None:
        return [
            file
            for place in flags.FLAGS.image
            for file in (photographs.find([place]) if _is_many(place) else [place])
        ]
    return [str(each.path) for each in samples]


def _is_many(place: str) -> bool:
    """Return whether this names a folder or a pattern and not one file."""
    path = Path(place).expanduser()
    return path.is_dir() or (not path.exists() and any(sign in place for sign in "*?["))


def first_examples(
    network: Trained, dataset: datasets.Dataset, count: int
) -> tuple[Float[np.ndarray, "n h w c"], Int[np.ndarray, " n"]]:
    """Return the pixels, in 0..1, and the labels of the data set's first examples."""
    return pipeline.first_examples(dataset, network.preprocessing, count)


def open_folder(
    name: str,
    network: Trained,
    samples: Sequence[Photograph] = PHOTOGRAPHS,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Return the folder of the results of the experiment of this name, which holds config.json.

    Where no flag names it and other flags' results are in it, it is the next one (NAME_2, ...).

    Args:
      config: what config.json says; by default `configuration`.

    Raises:
      UsageError: the folder that is named holds another configuration's, or it cannot be written.
    """
    config = configuration(network, samples) if config is None else config
    named = flags.FLAGS.output or (network.config is None and flags.FLAGS.workdir)
    return app.open_free_workdir(results_folder(name, network), config, named=bool(named))


def results_folder(name: str, network: Trained) -> Path:
    """Return the folder of the results of the experiment of this name."""
    if flags.FLAGS.output is not None:
        return Path(flags.FLAGS.output)
    if network.config is not None:
        return Path(flags.FLAGS.workdir) / name
    return Path(flags.FLAGS.workdir or f"runs/{name}_{network.model.name}")


def configuration(
    network: Trained, samples: Sequence[Photograph] = PHOTOGRAPHS
) -> Mapping[str, Any]:
    """Return all flags of the experiment and the network's source, with its checkpoint's hash."""
    chosen = app.flag_values()
    for place in ("workdir", "output", "data_dir"):  # a run that was moved stays the same run
        chosen.pop(place, None)
    source = {key: value for key, value in network.source.items() if key != "workdir"}
    shown = {}
    if "image" in flags.FLAGS:
        files = [] if flags.FLAGS.image else image_files(network, samples)
        shown = {"sample_photographs": [Path(file).name for file in files]} if files else {}
    return chosen | shown | {"source": source}


def read_files(network: Trained, files: Iterable[str | Path]) -> Float[np.ndarray, "n h w c"]:
    """Return the pixels of image files, in 0..1, preprocessed for the network."""
    images = []
    for file in files:
        image = decoding.read(file, len(network.mean))
        image = preprocessing.preprocess(image, network.preprocessing)
        images.append(preprocessing.to_array(image))
    return np.stack(images).astype(np.float32) / 255
