"""Shows which images lie near each other for a network, beside their pixels: neighbours, t-SNE.

python -m experiments.embedding --workdir=runs/digits --gallery=1000
"""

from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax import trained
from cnn_jax.reports import representations, run_page
from cnn_jax.runtime.progress import bar

from . import app
from .flags import memory as memory_flags
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
network_flags.define_dataset()
subjects.define_output()
memory_flags.define()
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
    "Number of examples of the data set to compare.",
    lower_bound=4,
    module_name="Layers",
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
    network = network_flags.load_network()
    dataset = network_flags.load_dataset(network, answers=False)
    images, labels = subjects.first_examples(network, dataset, _GALLERY.value)
    folder = subjects.open_folder("embedding", network)
    shapes = trained.layer_shapes(network, images.shape[1:])
    results, section = representations.embedding_section(
        network,
        _LAYER.value or representations.features_layer(shapes),
        images,
        labels,
        dataset.class_names,
        jax.random.key(flags.FLAGS.seed),
        run_page.picture_in(folder),
        perplexity=_PERPLEXITY.value,
        batch_size=memory_flags.batch_size(trained.classifier(network), images),
        progress=bar("batch"),
    )
    for name, recalls in results["recall"].items():
        print(f"{name}: " + ", ".join(f"recall@{k} {value:.1%}" for k, value in recalls.items()))
    run_page.finish(folder, "Neighbours", [section], results, network=network)


if __name__ == "__main__":
    app.run(main)
