"""Recomputes a lecture's worked examples of convolution and pooling, as a page with pictures.

python -m experiments.convolution --workdir=runs/convolution
python -m experiments.convolution --workdir=runs/mine --image=photo.jpg
"""

from collections.abc import Sequence

import jax
from absl import flags

from cnn_jax.lecture import convolution
from cnn_jax.reports import run_page

from . import app

_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/convolution", "Folder of the page, its pictures and its numbers."
)
_IMAGE = flags.DEFINE_string(
    "image", None, "Photograph to filter; by default one that ships with scikit-learn."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise and of the random filters.")


def main(argv: Sequence[str]) -> None:
    del argv
    photograph, attribution = convolution.read_photograph(_IMAGE.value)
    config = {"image": _IMAGE.value, "seed": _SEED.value}
    workdir = app.open_free_workdir(_WORKDIR.value, config, named=_WORKDIR.present)
    with jax.enable_x64(True):
        results = convolution.compute(photograph, _SEED.value)
        sections = convolution.sections(results, photograph, attribution, workdir)
    run_page.finish(
        workdir,
        "Convolution and pooling",
        sections,
        results | {"photograph": attribution},
        "A lecture's worked examples, recomputed: every number and picture comes from the "
        "library's operations.",
    )


if __name__ == "__main__":
    app.run(main)
