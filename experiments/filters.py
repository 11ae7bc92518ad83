"""Shows a network's filters as images.

python -m experiments.filters --workdir=runs/digits
python -m experiments.filters --workdir=runs/digits --layer=stem --layer=stage2_block1/conv1
python -m experiments.filters --model=resnet18 --weights=resnet18.pth
"""

from collections.abc import Sequence

from absl import flags

from cnn_jax.reports import representations, run_page
from cnn_jax.visualize.filters import NORMALIZATIONS
from experiments import app
from experiments.flags import subject as subjects

_LAYER = flags.DEFINE_multi_string(
    "layer", [], "Path of a convolution; by default the first.", module_name="Filters"
)
_NORMALIZATION = flags.DEFINE_enum(
    "normalization",
    "each",
    list(NORMALIZATIONS),
    "Zero grey and each filter, or the layer, by its largest weight; or each from black to white",
    module_name="Filters",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("filters", images=False)
    shapes = representations.layer_shapes(subject.network, subject.pixels)
    results, section = representations.filters_section(
        subject.network,
        shapes,
        _LAYER.value,
        _NORMALIZATION.value,
        run_page.picture_in(subject.folder),
    )
    for layer, numbers in results["layers"].items():
        print(f"{layer}: {'x'.join(map(str, numbers['shape']))}")
    run_page.write(subject, "Filters", results, [section])


if __name__ == "__main__":
    app.run(main)
