"""Shows what the channels of a network's layers answer to.

One image's activations, and of many images the patches that excite a channel most:
python -m experiments.activations --workdir=runs/digits --layer=stage2_block3
"""

from collections.abc import Sequence

from absl import flags

from cnn_jax import trained
from cnn_jax.reports import representations, run_page
from cnn_jax.runtime.progress import bar

from . import app
from .flags import memory as memory_flags
from .flags import subject as subjects

subjects.define()
memory_flags.define()
_LAYER = flags.DEFINE_multi_string(
    "layer",
    [],
    "Path of a layer to show; by default four, spread over the depth.",
    module_name="Layers",
)
_CHANNELS = flags.DEFINE_integer(
    "channels",
    8,
    "Number of channels whose patches are shown.",
    lower_bound=1,
    module_name="Layers",
)
_GALLERY = flags.DEFINE_integer(
    "gallery",
    1000,
    "Number of examples of the data set in which patches are searched, where no --image is given.",
    lower_bound=1,
    module_name="Layers",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("activations", answers=False)
    network, pixels = subject.network, subject.pixels
    layers = _LAYER.value or representations.spread(trained.layer_shapes(network, pixels.shape[1:]))
    gallery = pixels
    if subject.labels is not None:
        dataset = subjects.load_dataset(network, answers=False)
        gallery, _ = subjects.first_examples(network, dataset, _GALLERY.value)
    picture = run_page.picture_in(subject.folder)
    way, way_section = representations.activations_section(network, pixels[0], layers, picture)
    patches, patches_section = representations.patches_section(
        network,
        gallery,
        layers,
        picture,
        channels=_CHANNELS.value,
        batch_size=memory_flags.batch_size(trained.classifier(network), gallery),
        progress=bar("batch"),
    )
    for layer in layers:
        channels = way[layer]["shape"][-1]
        print(f"{layer}: {channels} channels, {patches[layer]['dead']} never positive")
    results = {"activations": way, "patches": patches, "gallery": len(gallery)}
    run_page.finish(
        subject.folder,
        "Activations",
        [way_section, patches_section],
        results,
        network=subject.network,
    )


if __name__ == "__main__":
    app.run(main)
