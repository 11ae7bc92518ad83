"""Shows what a network's answer loses when a patch of the image is covered.

python -m experiments.occlusion --workdir=runs/digits --window=4 --stride=1
"""

from collections.abc import Sequence

from absl import flags

from cnn_jax.reports import explanations, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize.occlusion import AGGREGATES
from cnn_jax.visualize.scores import OUTPUTS

from . import app
from .flags import methods as method_flags
from .flags import subject as subjects

subjects.define()
method_flags.define()
_WINDOW = flags.DEFINE_integer(
    "window",
    None,
    "Side of the covering square in pixels; by default a quarter of the image's.",
    lower_bound=1,
    module_name="Occlusion",
)
_STRIDE = flags.DEFINE_integer(
    "stride",
    None,
    "Distance between two places of the square in pixels; by default a quarter of the window.",
    lower_bound=1,
    module_name="Occlusion",
)
_FILL = flags.DEFINE_float(
    "fill",
    0.5,
    "Grey value of the covering square: 0 is black, 0.5 grey, 1 white.",
    module_name="Occlusion",
)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate",
    "mean",
    list(AGGREGATES),
    "How the losses of the windows that cover a pixel are combined.",
    module_name="Occlusion",
)
_OUTPUT_KIND = flags.DEFINE_enum(
    "explain",
    "probability",
    list(OUTPUTS),
    "Output of the class that is explained.",
    module_name="Occlusion",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("occlusion")
    question, settings, _ = method_flags.ask(subject)
    window = _WINDOW.value or max(min(subject.pixels.shape[1:3]) // 4, 1)
    stride = _STRIDE.value or max(window // 4, 1)
    places = {"window": (window, window), "stride": (stride, stride), "fill": _FILL.value}
    results, section = explanations.occlusion_section(
        question,
        places,
        _AGGREGATE.value,
        _OUTPUT_KIND.value,
        run_page.picture_in(subject.folder),
        batch_size=settings.batch_size,
        progress=bar("batch"),
    )
    for name, least in zip(question.names, results["least_output"], strict=True):
        print(f"{' '.join(name.split())}; {least:.3g} at the worst place")
    run_page.finish(subject.folder, "Occlusion", [section], results, network=subject.network)


if __name__ == "__main__":
    app.run(main)
