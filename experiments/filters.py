"""Shows a network's filters as images.

python -m experiments.filters --workdir=runs/digits
python -m experiments.filters --workdir=runs/digits --layer=stem --layer=stage2_block1/conv1
python -m experiments.filters --model=resnet18 --weights=resnet18.pth
"""

from collections.abc import Sequence

from absl import flags

from cnn_jax.reports import representations, run_page
from cnn_jax.trained import layer_shapes
from cnn_jax.visualize.filters import NORMALIZATIONS

from . import app
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
subjects.define_output()
_LAYER = flags.DEFINE_multi_string(
    "layer", [], "Path of a convolution; by default the first.", module_name="Filters"
)
_NORMALIZATION = flags.DEFINE_enum(
    "normalization",
    "each",
    list(NORMALIZATIONS),
    "Scale of the grey values: zero is mid-grey and each filter, or the whole layer, is "
    "divided by its largest weight; or each filter ranges from black to white.",
    module_name="Filters",
)


def main(argv: Sequence[str]) -> None:
    del argv
    network = network_flags.load_network()
    size, channels = network.preprocessing.image_size, len(network.mean)
    shapes = layer_shapes(network, (size, size, channels))
    folder = subjects.open_folder("filters", network)
    results, section = representations.filters_section(
        network,
        shapes,
        _LAYER.value,
        _NORMALIZATION.value,
        run_page.picture_in(folder),
    )
    for layer, numbers in results["layers"].items():
        print(f"{layer}: {'x'.join(map(str, numbers['shape']))}")
    run_page.finish(folder, "Filters", [section], results, network=network)


if __name__ == "__main__":
    app.run(main)
