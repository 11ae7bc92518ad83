"""Fooling images: meaningless to us, certain to the network.

python -m experiments.fooling --workdir=runs/digits
python -m experiments.fooling --workdir=runs/digits --image=photo.jpg   # the fantasy's start

For every class a synthetic image by gradient and one by evolution, which needs no gradient, and a
fantasy image: the class as it appears in a photograph (or in an example of the data set).
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.reports import fooling as fooling_report
from cnn_jax.reports import run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import batching, fooling

from . import app
from .flags import memory as memory_flags
from .flags import subject as subjects

subjects.define()
memory_flags.define()
_STEPS = flags.DEFINE_integer(
    "steps", 100, "Number of steps of gradient ascent.", lower_bound=1, module_name="Fooling"
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    0.01,
    "Learning rate of Adam for the images by gradient.",
    module_name="Fooling",
)
_GENERATIONS = flags.DEFINE_integer(
    "generations",
    2000,
    "Number of generations of the evolution.",
    lower_bound=1,
    module_name="Fooling",
)
_CHILDREN = flags.DEFINE_integer(
    "children", 64, "Number of images in a generation.", lower_bound=1, module_name="Fooling"
)
_MOST = flags.DEFINE_integer(
    "most_classes",
    16,
    "Largest number of classes for which images are made, counted from the first.",
    lower_bound=1,
    module_name="Fooling",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("fooling")
    network, shape = subject.network, subject.pixels.shape[1:]
    classes = min(_MOST.value, network.model.num_classes)
    most = max(network.model.num_classes, _CHILDREN.value)
    f = batching.within_memory(
        trained.classifier(network),
        jax.ShapeDtypeStruct((most, *shape), np.float32),
        memory_flags.limit(),
    )
    key, start = jax.random.key(flags.FLAGS.seed), time.perf_counter()
    found = fooling_report.images(
        f, classes, subject.pixels[0], key, steps=_STEPS.value,
        learning_rate=_LEARNING_RATE.value, generations=_GENERATIONS.value,
        children=_CHILDREN.value, progress=bar("step"),
    )  # fmt: skip
    seconds = time.perf_counter() - start
    real = None
    if subject.labels is not None:
        real = np.asarray(jax.jit(fooling.confidences)(f, subject.pixels, subject.labels))
    numbers = fooling_report.numbers(found, real)
    results = {"confidences": numbers, "seconds": seconds, "shape": shape, "source": network.source}
    for way, values in numbers.items():
        print(f"{way:<14} median confidence {np.median(values):.4f}, least {np.min(values):.4f}")
    run_page.finish(
        subject.folder,
        f"Images that fool {network.model.name}",
        [fooling_report.section(found, subject.class_names[:classes], numbers, subject.folder)],
        results,
        "Made until the network is sure of a class that nobody sees in them.",
    )


if __name__ == "__main__":
    app.run(main)
