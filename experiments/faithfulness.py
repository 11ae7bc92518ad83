"""Judges the maps of many methods: insertion, deletion, and what randomising the network does.

python -m experiments.faithfulness --workdir=runs/digits --examples=16

Each map is made anew for each layer that is randomised. So of images of more than 64 pixels' side
the methods that take many passes a map are judged where --methods names them.
"""

from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax.reports import explanations, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize.methods import CONTROLS, METHODS

from . import app
from .flags import methods as method_flags
from .flags import subject as subjects

SMALL = 64
MANY_PASSES = ("smooth_grad", "integrated_gradients", "occlusion", "rise")
subjects.define()
method_flags.define()
_METHODS = flags.DEFINE_list(
    "methods",
    None,
    "Methods to judge, and the controls to compare them with; by default all, and of images of "
    f"more than {SMALL} pixels' side those that take one pass a map.",
    module_name="Map",
)
_PIXELS = flags.DEFINE_integer(
    "pixels",
    None,
    "Number of pixels changed in a step of insertion and deletion; by default those of a row, and "
    f"of eight rows of images of more than {SMALL} pixels' side.",
    lower_bound=1,
    module_name="Judgement",
)
_ALONE = flags.DEFINE_boolean(
    "alone",
    None,
    "Whether to randomise each layer by itself too, beside the cascade from the top; by default "
    f"unless the images have more than {SMALL} pixels' side.",
    module_name="Judgement",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("faithfulness")  # first, as a run brings its plugins
    height, width = subject.pixels.shape[1:3]
    small = max(height, width) <= SMALL
    alone = small if _ALONE.value is None else _ALONE.value
    pixels = _PIXELS.value or (None if small else 8 * width)
    usual = [name for name in METHODS if small or name not in MANY_PASSES]
    names = method_flags.chosen(_METHODS.value or [*usual, *CONTROLS])
    question, settings, _ = method_flags.ask(subject)
    maps, refused, doubts = explanations.explain(question, names, settings, bar("method"))
    curves = explanations.insertion_deletion(
        question, maps, batch_size=settings.batch_size, pixels=pixels, progress=bar("map")
    )
    model = subject.network.model
    image = jax.ShapeDtypeStruct((1, *subject.pixels.shape[1:]), np.float32)
    key = jax.random.fold_in(settings.key, 1)
    drawn = jax.jit(lambda key: model.init(key, image))(key)
    likeness = [
        explanations.randomization(
            question, list(maps), drawn, settings, cascade=cascade, progress=bar("method")
        )
        if cascade or alone
        else {}
        for cascade in (True, False)
    ]
    picture = run_page.picture_in(subject.folder)
    table, table_section = explanations.maps_section(
        question, maps, refused, settings, picture, doubts
    )
    results, section = explanations.judgement_section(maps, curves, *likeness, picture)
    for name, row in results["methods"].items():
        print(
            f"{name:22} insertion {row['insertion']:.3f}  deletion {row['deletion']:.3f}  "
            f"Spearman when randomised {row['spearman']:+.3f}"
            + ("  insensitive to the network" if row["insensitive"] else "")
        )
    run_page.finish(
        subject.folder,
        "Whether to believe the maps",
        [section, table_section],
        {**table, **results},
        network=subject.network,
    )


if __name__ == "__main__":
    app.run(main)
