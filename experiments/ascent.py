"""Gradient ascent: the images that excite classes, channels or a layer the most.

python -m experiments.ascent
python -m experiments.ascent --target=koala,zebra --judge=tf_efficientnet_lite2
python -m experiments.ascent --workdir=runs/digits --layers=stage3_block1 --target=0,5 --diverse=4

Of classes without --layers. Two ways beside each other: from zeros with the penalty lambda ||x||^2,
and over spectra in decorrelated colours under random transformations; with --photograph a third,
which is the second from a photograph. Each is judged by its score, by what remains of it under
transformations that were not used, and with --judge by what another network sees in the pictures.
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.data import decoding, preprocessing
from cnn_jax.errors import UsageError, unknown
from cnn_jax.reports import ascent as ascent_report
from cnn_jax.reports import judged, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import ascent, batching

from . import app
from .flags import judge as judge_flags
from .flags import layers as layer_flags
from .flags import memory as memory_flags
from .flags import network as network_flags
from .flags import subject as subjects
from .flags import target as target_flags

network_flags.define()
subjects.define_output()
layer_flags.define()
memory_flags.define()
judge_flags.define()
_PHOTOGRAPH = flags.DEFINE_string(
    "photograph", None, "Photograph that is turned into each target too.", module_name="Ascent"
)
_WAYS = flags.DEFINE_list(
    "ways",
    ["zeros", "spectrum"],
    "Ways that are gone: zeros, spectrum, or both; --photograph adds its own.",
    module_name="Ascent",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the pictures in pixels; by default that of the network's images, but 128 where those "
    "are larger and the network takes it.",
    lower_bound=1,
    module_name="Ascent",
)
_TARGET = flags.DEFINE_list(
    "target",
    None,
    "Classes, by name or number, or numbers of the channels of --layers, to excite; by default ten "
    "that are spread evenly over all.",
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
    None,
    "Standard deviation in pixels of the Gaussian blur after each step, for the images "
    "that start from zeros; by default .5 for pictures of 64 pixels and more, else none.",
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
    judge = judge_flags.load(network)
    for way in _WAYS.value:
        if way not in ("zeros", "spectrum"):
            raise unknown("way", way, ["zeros", "spectrum"])
    if not _WAYS.value and _PHOTOGRAPH.value is None:
        raise UsageError("--ways names no way; write zeros, spectrum or both")
    paths = flags.FLAGS.layers
    if paths and len(paths) > 1:
        raise UsageError("ascent looks at one layer at a time; give one of --layers")
    if paths and judge:
        raise UsageError("--judge names classes; leave --layers away")
    f = trained.layer(network, paths[0]) if paths else trained.classifier(network)
    own, channels = network.preprocessing.image_size, len(network.mean)
    if paths:
        layer_flags.chosen(network, (own, own, channels))  # raises for a path that is not there
    size = _IMAGE_SIZE.value or ascent_report.picture_size(f, own, channels)
    shape = (size, size, channels)
    if not judged.takes(f, shape):
        raise UsageError(
            f"{network.model.name} does not take {size} pixels; leave --image_size away"
        )
    width = network.model.num_classes
    if paths:
        width = trained.layer_shapes(network, shape)[paths[0]][-1]
    known = () if paths else network.class_names
    every = (*known, *map(str, range(len(known), width)))
    targets = np.zeros(1, int) if _UNIT.value == "layer" else _targets(every)
    repeated = np.repeat(targets, _DIVERSE.value)
    objective = {
        "channel": lambda: ascent.channel(repeated),
        "neuron": lambda: ascent.neuron(repeated),
        "layer": lambda: ascent.layer,
    }[_UNIT.value]()
    key, batch = jax.random.key(flags.FLAGS.seed), (len(repeated), *shape)
    images = jax.ShapeDtypeStruct(batch, np.float32)
    f = batching.within_memory(f, images, memory_flags.limit())
    photograph = (
        None if _PHOTOGRAPH.value is None else _photograph(_PHOTOGRAPH.value, size, channels)
    )
    folder = subjects.open_folder("ascent", network)
    options = {"steps": _STEPS.value, "progress": bar("step")}
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
    found = {}
    if "zeros" in _WAYS.value:
        blur = (0.5 if size >= 64 else 0.0) if _BLUR.value is None else _BLUR.value
        found[ascent_report.FROM_ZEROS] = ascent.simonyan(
            f, objective, batch, l2_weight=_L2_WEIGHT.value,
            variation_weight=_VARIATION_WEIGHT.value, blur=blur, **options,
        )  # fmt: skip
    if "spectrum" in _WAYS.value:
        found["spectrum"] = ascent.lucid(f, objective, batch, key, **options, **diverse)
    if photograph is not None:
        begun = np.broadcast_to(photograph, batch)
        found["photograph"] = ascent.lucid(
            f, objective, batch, key, images=begun, **options, **diverse
        )
    seconds = time.perf_counter() - start
    names = [every[t] if not paths else str(t) for t in repeated]
    numbers = ascent_report.numbers(f, objective, found, key)
    results = {"targets": repeated, "ways": numbers, "seconds": seconds, "source": network.source}
    if judge:
        results["judge"] = {"model": judge.model.name, "source": judge.source} | {
            way: judged.judge(judge, ascent_report.shown(way, each), names)
            for way, each in found.items()
        }
    what = f"{_UNIT.value}s of {paths[0]}" if paths else "classes"
    for way, row in numbers.items():
        verdict = f"; {judge.model.name}: {judged.verdict(results['judge'][way])}" if judge else ""
        print(
            f"{way}: {np.mean(row['start']):.3g} -> {np.mean(row['score']):.3g}, "
            f"{np.mean(row['transformed']):.3g} under transformations not used{verdict}"
        )
    run_page.finish(
        folder,
        f"Gradient ascent in {network.model.name}",
        [ascent_report.section(found, names, numbers, folder, results.get("judge"))],
        results,
        f"Images found by ascent that excite {what}.",
    )


def _photograph(file: str, size: int, channels: int) -> np.ndarray:
    options = preprocessing.Preprocessing(size)
    image = preprocessing.preprocess(decoding.read(file, channels), options)
    return preprocessing.to_array(image).astype(np.float32) / 255


def _targets(class_names: Sequence[str]) -> np.ndarray:
    wanted = _TARGET.value
    if wanted is None:
        return np.unique(np.linspace(0, len(class_names) - 1, 10).astype(int))
    if not wanted:
        raise UsageError("--target names nothing; write koala, or 0,3")
    return np.array([target_flags.class_number(text, class_names) for text in wanted])


if __name__ == "__main__":
    app.run(main)
