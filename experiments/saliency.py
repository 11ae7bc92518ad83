"""Shows which pixels a network's answer depends on, by many methods side by side.

python -m experiments.saliency --workdir=runs/digits
python -m experiments.saliency --model=resnet50 --weights=resnet50.pth --image=cat.jpg --methods=grad_cam,rise
"""  # noqa: E501

from collections.abc import Sequence

import numpy as np
from absl import flags

from cnn_jax.errors import UsageError
from cnn_jax.reports import explanations, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize.methods import CONTROLS, METHODS

from . import app
from .flags import methods as method_flags
from .flags import subject as subjects

subjects.define()
method_flags.define()
_METHODS = flags.DEFINE_list(
    "methods",
    list(METHODS),
    f"Methods to compare, a column each; the controls {' and '.join(CONTROLS)} are known too.",
    module_name="Map",
)


def main(argv: Sequence[str]) -> None:
    del argv
    subject = subjects.load("saliency")  # first, as a run brings its plugins
    names = method_flags.chosen(_METHODS.value)
    question, settings, _ = method_flags.ask(subject)
    maps, refused, doubts = explanations.explain(question, names, settings, bar("method"))
    if not maps:
        raise UsageError("; ".join(refused.values()))
    np.savez_compressed(subject.folder / "maps.npz", **maps)
    picture = run_page.picture_in(subject.folder)
    results, section = explanations.maps_section(question, maps, refused, settings, picture, doubts)
    for name, reason in refused.items():
        print(f"{name} left out: {reason}")
    print(f"{len(maps)} methods on {len(question.pixels)} images; the maps are in maps.npz")
    run_page.finish(
        subject.folder, "What the answer depends on", [section], results, network=subject.network
    )


if __name__ == "__main__":
    app.run(main)
