"""Gradient ascent: the images that excite classes, channels or a layer the most.

python -m experiments.ascent --workdir=runs/digits
python -m experiments.ascent --workdir=runs/digits --layers=stage3_block1 --target=0,5 --diverse=4

Of classes without --layers. Two ways beside each other: from zeros with the penalty lambda ||x||^2,
and over spectra in decorrelated colours under random transformations. Each is judged by its score
and by what remains of it under transformations that were not used.
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.errors import UsageError
from cnn_jax.reports import ascent as ascent_report
from cnn_jax.reports import run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import ascent, batching

from . import app
from .flags import layers as layer_flags
from .flags import memory as memory_flags
from .flags import network as network_flags
from .flags import subject as subjects
from .flags import target as target_flags

network_flags.define()
subjects.define_output()
layer_flags.define()
memory_flags.define()
_TARGET = flags.DEFINE_list(
    "target",
    None,
    "Numbers of the classes, or of the channels of --layers, to excite; by default the first 16.",
    module_name="Ascent",
)
_UNIT = flags.DEFINE_enum(
    "unit",
    "channel",
    ["channel", "neuron", "layer"],
    "Which part of the layer to excite: a whole channel, its central neuron, or the whole layer.",
    module_name="Ascent",
)
_DIVERSE = flags.DEFINE_integer(
    "diverse",
    1,
    "Number of images for each target, driven apart from each other.",
    lower_bound=1,
    module_name="Ascent",
)
_DIVERSITY_WEIGHT = flags.DEFINE_float(
    "diversity_weight",
    1.0,
    "Weight of the term that drives them apart, the cosines between their Gram matrices.",
    module_name="Ascent",
)
_STEPS = flags.DEFINE_integer(
    "steps", 256, "Number of steps of gradient ascent.", lower_bound=1, module_name="Ascent"
)
_VARIATION_WEIGHT = flags.DEFINE_float(
    "variation_weight",
    0.0,
    "Weight of the total variation, for the images that start from zeros.",
    module_name="Ascent",
)
_BLUR = flags.DEFINE_float(
    "blur",
    0.0,
    "Standard deviation in pixels of the Gaussian blur after each step, for the images "
    "that start from zeros.",
    module_name="Ascent",
)
_L2_WEIGHT = flags.DEFINE_float(
    "l2_weight",
    0.01,
    "Weight lambda of the penalty ||x||^2, for the images that start from zeros.",
    module_name="Ascent",
)


def main(argv: Sequence[str]) -> None:
    del argv
    network = network_flags.load_network()
    size, channels = network.preprocessing.image_size, len(network.mean)
    paths = flags.FLAGS.layers
    if paths and len(paths) > 1:
        raise UsageError("ascent looks at one layer at a time; give one of --layers")
    shape = (size, size, channels)
    width = network.model.num_classes
    if paths:
        layer_flags.chosen(network, shape)  # raises for a path that is not there
        width = trained.layer_shapes(network, shape)[paths[0]][-1]
    known = () if paths else network.class_names
    targets = _targets((*known, *map(str, range(len(known), width))))
    f = trained.layer(network, paths[0]) if paths else trained.classifier(network)
    if _UNIT.value == "layer":
        targets = np.zeros(1, int)
    repeated = np.repeat(targets, _DIVERSE.value)
    objective = {
        "channel": lambda: ascent.channel(repeated),
        "neuron": lambda: ascent.neuron(repeated),
        "layer": lambda: ascent.layer,
    }[_UNIT.value]()
    key, batch = jax.random.key(flags.FLAGS.seed), (len(repeated), *shape)
    images = jax.ShapeDtypeStruct(batch, np.float32)
    f = batching.within_memory(f, images, memory_flags.limit())
    folder = subjects.open_folder("ascent", network)
    diverse = {}
    if _DIVERSE.value > 1:
        by = paths[0] if paths else ascent_report.middle_layer(trained.layer_shapes(network, shape))
        diverse = {
            "diverse": batching.within_memory(
                trained.layer(network, by), images, memory_flags.limit()
            ),
            "diversity_weight": _DIVERSITY_WEIGHT.value,
        }
    start = time.perf_counter()
    found = {
        "from zeros": ascent.simonyan(
            f, objective, batch, l2_weight=_L2_WEIGHT.value,
            variation_weight=_VARIATION_WEIGHT.value,
            blur=_BLUR.value, steps=_STEPS.value,
            progress=bar("step"),
        ),
        "spectrum": ascent.lucid(
            f, objective, batch, key, steps=_STEPS.value, progress=bar("step"), **diverse
        ),
    }  # fmt: skip
    seconds = time.perf_counter() - start
    names = network.class_names if not paths and network.class_names else None
    names = [names[t] if names else str(t) for t in repeated]
    numbers = ascent_report.numbers(f, objective, found, key)
    results = {"targets": repeated, "ways": numbers, "seconds": seconds, "source": network.source}
    what = f"{_UNIT.value}s of {paths[0]}" if paths else "classes"
    for way, row in numbers.items():
        print(
            f"{way}: {np.mean(row['start']):.3g} -> {np.mean(row['score']):.3g}, "
            f"{np.mean(row['transformed']):.3g} under transformations not used"
        )
    run_page.finish(
        folder,
        f"Gradient ascent in {network.model.name}",
        [ascent_report.section(found, names, numbers, folder)],
        results,
        f"Images found by ascent that excite {what}.",
    )


def _targets(class_names: Sequence[str]) -> np.ndarray:
    wanted = _TARGET.value
    if wanted is None:
        return np.arange(min(len(class_names), 16))
    if not wanted:
        raise UsageError("--target names nothing; write koala, or 0,3")
    return np.array([target_flags.class_number(text, class_names) for text in wanted])


if __name__ == "__main__":
    app.run(main)
