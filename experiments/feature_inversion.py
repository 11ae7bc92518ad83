"""Inverts the features of images: what each layer of a network keeps of its input.

python -m experiments.feature_inversion --workdir=runs/digits
python -m experiments.feature_inversion --workdir=runs/shapes --image=photo.jpg --layers=stem,head

Minimises ||phi(x) - phi0||^2 / ||phi0||^2 + R(x) from noise, for every layer in one run; R is the
alpha-norm and the total variation of Mahendran & Vedaldi 2015. The figure has a column a layer,
with the normalised error ||phi(x) - phi0||^2 / ||phi0||^2 under each picture.
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.errors import UsageError
from cnn_jax.reports import inversion as inversion_report
from cnn_jax.reports import run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import batching, inversion
from cnn_jax.visualize.lbfgs import lbfgs

from . import app
from .flags import layers as layer_flags
from .flags import memory as memory_flags
from .flags import subject as subjects

subjects.define()
layer_flags.define()
memory_flags.define()
_OPTIMIZERS = {
    "lbfgs": lambda rate, steps: lbfgs(),
    "adam": lambda rate, steps: inversion.adam(rate or 0.05, steps),
    "momentum": lambda rate, steps: inversion.momentum(rate or 0.1, steps),
}
_STEPS = flags.DEFINE_integer(
    "steps", 400, "Number of evaluations of the network.", lower_bound=1, module_name="Inversion"
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "lbfgs", list(_OPTIMIZERS), "Optimizer of the image.", module_name="Inversion"
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    "Learning rate of adam (by default .05 at first) and momentum (.1).",
    module_name="Inversion",
)
_ALPHA_WEIGHT = flags.DEFINE_float(
    "alpha_weight",
    3e-3,
    "Weight of the penalty on the mean of |x|^6, for x in -1..1.",
    module_name="Inversion",
)
_VARIATION_WEIGHTS = flags.DEFINE_list(
    "variation_weights",
    ["1e-4", "1e-1"],
    "Weights of the mean total variation, for the first and the last layer.",
    module_name="Inversion",
)


def variation_weights() -> tuple[float, float]:
    """Return the two numbers of --variation_weights."""
    try:
        first, last = map(float, _VARIATION_WEIGHTS.value)
    except ValueError:
        first = last = 0.0
    if min(first, last) <= 0:
        raise UsageError("--variation_weights takes two positive numbers, such as 1e-4,1e-1")
    return first, last


def main(argv: Sequence[str]) -> None:
    del argv
    weights = variation_weights()
    subject = subjects.load("feature_inversion", answers=False)
    network, pixels = subject.network, subject.pixels
    paths = layer_flags.chosen(network, pixels.shape[1:])
    f = trained.layers(network, paths)
    gradient = batching.gradient_of_sum(f)
    start = time.perf_counter()
    inversions = inversion.invert_layers(
        f,
        paths,
        pixels,
        jax.random.key(flags.FLAGS.seed),
        alpha_weight=_ALPHA_WEIGHT.value,
        variation_weights=weights,
        optimizer=_OPTIMIZERS[_OPTIMIZER.value](_LEARNING_RATE.value, _STEPS.value),
        steps=_STEPS.value,
        batch_size=batching.largest_batch(gradient, pixels, memory_limit=memory_flags.limit()),
        progress=bar("step"),
    )
    seconds = time.perf_counter() - start
    rows = inversion_report.rows(
        inversions, pixels, trained.layer_shapes(network, pixels.shape[1:])
    )
    results = {"layers": rows, "steps": _STEPS.value, "seconds": seconds, "source": network.source}
    section = inversion_report.section(inversions, pixels, subject.names, rows, subject.folder)
    for row in rows:
        print(f"{row['layer']:<28} normalised error {np.mean(row['error']):.2e}")
    run_page.finish(
        subject.folder,
        f"Feature inversion of {network.model.name}",
        [section],
        results,
        "Images found by descent from noise whose activations are those of the images shown.",
    )


if __name__ == "__main__":
    app.run(main)
