"""Fooling images: meaningless to us, certain to the network.

python -m experiments.fooling
python -m experiments.fooling --target=koala,zebra,iPod
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
from cnn_jax.errors import UsageError
from cnn_jax.reports import fooling as fooling_report
from cnn_jax.reports import run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import batching, fooling

from . import app
from .flags import memory as memory_flags
from .flags import subject as subjects
from .flags import target as target_flags

SMALL = 64
subjects.define()
memory_flags.define()
_TARGET = flags.DEFINE_list(
    "target",
    None,
    "Classes, by name or number, for which images are made; by default some that are spread evenly "
    "over all.",
    module_name="Fooling",
)
_STEPS = flags.DEFINE_integer(
    "steps",
    None,
    f"Number of steps of gradient ascent; by default 100, and 40 for images of more than {SMALL} "
    "pixels' side.",
    lower_bound=1,
    module_name="Fooling",
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    0.01,
    "Learning rate of Adam for the images by gradient.",
    module_name="Fooling",
)
_GENERATIONS = flags.DEFINE_integer(
    "generations",
    None,
    f"Number of generations of the evolution; by default 2000, and 1600 for images of more than "
    f"{SMALL} pixels' side.",
    lower_bound=1,
    module_name="Fooling",
)
_CHILDREN = flags.DEFINE_integer(
    "children",
    None,
    "Number of images in a generation; by default 64, and one of each class for images of more "
    f"than {SMALL} pixels' side.",
    lower_bound=1,
    module_name="Fooling",
)
_MUTATION = flags.DEFINE_enum(
    "mutation",
    None,
    list(fooling.MUTATIONS),
    "What evolution changes: pixels here and there, a rectangle as a whole, waves that it lays "
    "over one, or one of these two by lot; by default pixels, and mixed for images of more than "
    f"{SMALL} pixels' side.",
    module_name="Fooling",
)
_MOST = flags.DEFINE_integer(
    "most_classes",
    10,
    "Largest number of classes for which images are made without --target.",
    lower_bound=1,
    module_name="Fooling",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("fooling")
    network, shape = subject.network, subject.pixels.shape[1:]
    targets = _targets(subject.class_names)
    small = max(shape[:2]) <= SMALL
    children = _CHILDREN.value or (64 if small else len(targets))
    most = max(len(targets), children)
    f = batching.within_memory(
        trained.classifier(network),
        jax.ShapeDtypeStruct((most, *shape), np.float32),
        memory_flags.limit(),
    )
    generations = _GENERATIONS.value or (2000 if small else 1600)
    mutation = _MUTATION.value or ("pixels" if small else "mixed")
    key, start = jax.random.key(flags.FLAGS.seed), time.perf_counter()
    found = fooling_report.images(
        f, targets, subject.pixels[0], key, steps=_STEPS.value or (100 if small else 40),
        learning_rate=_LEARNING_RATE.value,
        generations=generations, children=children, mutation=mutation,
        progress=bar("step"),
    )  # fmt: skip
    seconds = time.perf_counter() - start
    real = None
    if subject.labels is not None:
        real = np.asarray(jax.jit(fooling.confidences)(f, subject.pixels, subject.labels))
    numbers = fooling_report.numbers(found, real)
    names = [subject.class_names[target] for target in targets]
    results = {
        "targets": names,
        "confidences": numbers,
        "mutation": mutation,
        "images_a_class": generations * children // len(targets),
        "seconds": seconds,
        "shape": shape,
        "source": network.source,
    }
    for way, values in numbers.items():
        print(f"{way:<14} median confidence {np.median(values):.4f}, least {np.min(values):.4f}")
    run_page.finish(
        subject.folder,
        f"Images that fool {network.model.name}",
        [fooling_report.section(found, names, numbers, subject.folder, mutation)],
        results,
        "Made until the network is sure of a class that nobody sees in them.",
    )


def _targets(class_names: Sequence[str]) -> list[int]:
    if _TARGET.value is None:
        count = min(_MOST.value, len(class_names))
        return [int(i) for i in np.linspace(0, len(class_names) - 1, count)]
    if not _TARGET.value:
        raise UsageError("--target names nothing; write koala, or 0,3")
    numbers = (target_flags.class_number(text, class_names) for text in _TARGET.value)
    return list(dict.fromkeys(numbers))


if __name__ == "__main__":
    app.run(main)
