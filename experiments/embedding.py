"""Shows which images lie near each other for a network, beside their pixels: neighbours, t-SNE.

python -m experiments.embedding --workdir=runs/digits --gallery=1000
"""

from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax import trained
from cnn_jax.errors import UsageError
from cnn_jax.reports import representations, run_page
from cnn_jax.runtime.progress import bar
from experiments import app
from experiments.flags import subject as subjects
from experiments.flags import target as target_flags

_LAYER = flags.DEFINE_string(
    "layer",
    None,
    "Path of a layer; by default the last before the logits with one vector an image.",
    module_name="Layers",
)
_GALLERY = flags.DEFINE_integer(
    "gallery", 1000, "Examples of the data set.", lower_bound=4, module_name="Layers"
)
_PERPLEXITY = flags.DEFINE_float(
    "perplexity",
    30.0,
    "Of t-SNE: about how many neighbours count; at most a third of the images.",
    lower_bound=1,
    module_name="Layers",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("embedding", answers=False)
    if subject.labels is None:
        raise UsageError("neighbours come from a data set; leave --image out")
    network = subject.network
    dataset = subjects.load_dataset(network, answers=False)
    images, labels = subjects.first_examples(network, dataset, _GALLERY.value)
    shapes = representations.layer_shapes(network, images)
    results, section = representations.embedding_section(
        network,
        _LAYER.value or representations.features_layer(shapes),
        images,
        labels,
        dataset.class_names,
        jax.random.key(subjects.seed()),
        run_page.picture_in(subject.folder),
        perplexity=_PERPLEXITY.value,
        batch_size=target_flags.batch_size(trained.classifier(network), images),
        progress=bar("batch"),
    )
    for name, recalls in results["recall"].items():
        print(f"{name}: " + ", ".join(f"recall@{k} {value:.1%}" for k, value in recalls.items()))
    run_page.write(subject, "Neighbours", results, [section])


if __name__ == "__main__":
    app.run(main)
