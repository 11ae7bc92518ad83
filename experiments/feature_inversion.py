"""Inverts the features of images: what each layer of a network keeps of its input.

python -m experiments.feature_inversion --workdir=runs/digits
python -m experiments.feature_inversion --workdir=runs/shapes --image=photo.jpg --layers=stem,head
python -m experiments.feature_inversion --judge=tf_efficientnet_lite2

Minimises ||phi(x) - phi0||^2 / ||phi0||^2 + R(x) from noise, for every layer in one run; R is the
alpha-norm and the total variation of Mahendran & Vedaldi 2015. The figure has a column a layer,
with the normalised error ||phi(x) - phi0||^2 / ||phi0||^2 under each picture. What is moved are
pixels, or spectra in decorrelated colours, by which large shapes and colours are found as soon as
the grain (--moved). With --judge another network, which was not matched, says how far each picture
is from its image.
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.errors import UsageError
from cnn_jax.reports import inversion as inversion_report
from cnn_jax.reports import judged, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import batching, inversion
from cnn_jax.visualize.lbfgs import lbfgs

from . import app
from .flags import judge as judge_flags
from .flags import layers as layer_flags
from .flags import memory as memory_flags
from .flags import subject as subjects

SMALL, LAYERS, PHOTOGRAPHS = 64, 10, 2  # of what is shown where nothing is asked for
subjects.define()
layer_flags.define()
memory_flags.define()
judge_flags.define()
_OPTIMIZERS = {
    "lbfgs": lambda rate, steps: lbfgs(),
    "adam": lambda rate, steps: inversion.adam(rate or 0.05, steps),
    "momentum": lambda rate, steps: inversion.momentum(rate or 0.1, steps),
}
_MOVED = flags.DEFINE_enum(
    "moved",
    None,
    ["pixels", "spectrum"],
    "What the optimizer moves: pixels, or spectra in decorrelated colours; by default the former, "
    f"and of images of more than {SMALL} pixels' side the latter.",
    module_name="Inversion",
)
_STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Number of evaluations of the network; by default 400 for pixels and 200 for the deepest "
    "layer's spectra, of which the first layer takes a quarter.",
    lower_bound=1,
    module_name="Inversion",
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
    judge = judge_flags.load_any()
    network, pixels, names = subject.network, subject.pixels, subject.names
    if subject.labels is None and not flags.FLAGS.image:
        pixels, names = pixels[:PHOTOGRAPHS], names[:PHOTOGRAPHS]
    paths = layer_flags.chosen(network, pixels.shape[1:])
    if flags.FLAGS.layers is None and len(paths) > LAYERS and max(pixels.shape[1:3]) > SMALL:
        spread = np.linspace(0, len(paths) - 1, LAYERS).round().astype(int)
        paths = tuple(paths[i] for i in spread)
    moved = _MOVED.value or ("spectrum" if max(pixels.shape[1:3]) > SMALL else "pixels")
    if moved == "spectrum":
        given = {f"--{name}": flags.FLAGS[name] for name in ("optimizer", "variation_weights")}
        for name, flag in given.items():
            if flag.present:
                raise UsageError(f"{name} goes with --moved=pixels; spectra have one of their own")
    f = trained.layers(network, paths)
    gradient = batching.gradient_of_sum(f)
    size = batching.largest_batch(gradient, pixels, memory_limit=memory_flags.limit())
    options = {"batch_size": size, "progress": bar("step"), "alpha_weight": _ALPHA_WEIGHT.value}
    key, start = jax.random.key(flags.FLAGS.seed), time.perf_counter()
    if moved == "spectrum":
        steps = _STEPS.value or 200
        options |= {"learning_rate": _LEARNING_RATE.value or 0.05}
        options |= {"steps": (-(-steps // 4), steps)}
        inversions = inversion.invert_by_spectra(f, paths, pixels, key, **options)
    else:
        steps = _STEPS.value or 400
        optimizer = _OPTIMIZERS[_OPTIMIZER.value](_LEARNING_RATE.value, steps)
        options |= {"variation_weights": weights, "optimizer": optimizer, "steps": steps}
        inversions = inversion.invert_layers(f, paths, pixels, key, **options)
    seconds = time.perf_counter() - start
    rows = inversion_report.rows(
        inversions, pixels, trained.layer_shapes(network, pixels.shape[1:])
    )
    results = {
        "layers": rows,
        "moved": moved,
        "steps": steps,
        "seconds": seconds,
        "source": network.source,
    }
    if judge:
        pictures = {path: np.asarray(found.images) for path, found in inversions.items()}
        results["judge"] = {
            "model": judge.model.name,
            "source": judge.source,
        } | judged.differences(judge, pixels, pictures)
    section = inversion_report.section(
        inversions, pixels, names, rows, subject.folder, results.get("judge")
    )
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
