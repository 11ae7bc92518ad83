"""Shows which images lie near each other for a network, beside their pixels: neighbours, t-SNE.

python -m experiments.embedding --workdir=runs/digits --gallery=1000
python -m experiments.embedding --image=holiday/

Of a folder of photographs a class is the folder within it that they lie in (--class_level takes one
further up), or where they lie in one what the network sees in them. With no flag, of crops of the
sample photographs.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.data import decoding, photographs
from cnn_jax.errors import UsageError
from cnn_jax.reports import representations, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize.batching import in_batches

from . import app
from .flags import memory as memory_flags
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
network_flags.define_dataset()
subjects.define_images()
subjects.define_output()
memory_flags.define()
FEWEST, CROPS = 4, 12  # images that can be compared; crops of a sample photograph
_LAYER = flags.DEFINE_string(
    "layer",
    None,
    "Path of the layer whose features are compared; by default the last before the "
    "logits with one vector an image.",
    module_name="Layers",
)
_GALLERY = flags.DEFINE_integer(
    "gallery",
    1000,
    "Number of examples of the data set to compare, or of photographs, spread evenly over those "
    "that are there.",
    lower_bound=4,
    module_name="Layers",
)
_CLASS_LEVEL = flags.DEFINE_integer(
    "class_level",
    None,
    "Level of the folder that names a photograph's class, counted from the folder of --image: 1 "
    "for those directly in it; by default the folder that the photograph itself lies in.",
    lower_bound=1,
    module_name="Images",
)
_PERPLEXITY = flags.DEFINE_float(
    "perplexity",
    30.0,
    "Perplexity of t-SNE, about the number of neighbours that count; at most a third of "
    "the images.",
    lower_bound=1,
    module_name="Layers",
)


def main(argv: Sequence[str]) -> None:
    del argv
    if _CLASS_LEVEL.value is not None and not flags.FLAGS.image:
        raise UsageError("--class_level goes with --image; give a folder of photographs")
    network = network_flags.load_network()
    files = subjects.image_files(network)
    if not files:
        dataset = network_flags.load_dataset(network, answers=False)
        images, labels = subjects.first_examples(network, dataset, _GALLERY.value)
        classes = dataset.class_names
    elif flags.FLAGS.image:
        count = min(_GALLERY.value, len(files))
        files = [files[i * len(files) // count] for i in range(count)]
        images = subjects.read_files(network, files)
        labels, classes = _classes(network, files, images)
    else:
        read = [decoding.read(file, len(network.mean)) for file in files]
        count, size = min(_GALLERY.value, CROPS * len(files)), network.preprocessing.image_size
        images, labels = photographs.random_crops(read, count, size, flags.FLAGS.seed)
        classes = tuple(Path(file).stem for file in files)
    if len(images) < FEWEST:
        raise UsageError(f"{len(images)} images are too few to compare; give {FEWEST} or more")
    folder = subjects.open_folder("embedding", network)
    shapes = trained.layer_shapes(network, images.shape[1:])
    results, section = representations.embedding_section(
        network,
        _LAYER.value or representations.features_layer(shapes),
        images,
        labels,
        classes,
        jax.random.key(flags.FLAGS.seed),
        run_page.picture_in(folder),
        perplexity=_PERPLEXITY.value,
        batch_size=memory_flags.batch_size(trained.classifier(network), images),
        progress=bar("batch"),
    )
    for name, recalls in results["recall"].items():
        print(f"{name}: " + ", ".join(f"recall@{k} {value:.1%}" for k, value in recalls.items()))
    run_page.finish(folder, "Neighbours", [section], results, network=network)


def _classes(
    network: trained.Trained, files: Sequence[str], images: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels and class names: the files' folders, or of one folder the network's answers."""
    folders = [_class_folder(Path(file)) for file in files]
    if len(set(folders)) > 1:
        names, labels = np.unique(folders, return_inverse=True)
        return labels, tuple(map(str, names))
    f = trained.classifier(network)
    size = memory_flags.batch_size(f, images)
    answer = jax.jit(lambda f, pixels: f(pixels).argmax(axis=1))
    seen = in_batches(lambda batch: answer(f, batch), images, batch_size=size)
    numbers, labels = np.unique(np.asarray(seen), return_inverse=True)
    known = network.class_names
    return labels, tuple(known[i] if i < len(known) else str(i) for i in numbers)


def _class_folder(file: Path) -> str:
    """Return the name of the folder that names this photograph's class."""
    if _CLASS_LEVEL.value is None:
        return file.parent.name
    for place in map(Path.expanduser, map(Path, flags.FLAGS.image)):
        if file.parent.is_relative_to(place):
            return [place.name, *file.parent.relative_to(place).parts][: _CLASS_LEVEL.value + 1][-1]
    raise UsageError(f"--class_level counts from a folder; give the one of {file} as --image")


if __name__ == "__main__":
    app.run(main)
