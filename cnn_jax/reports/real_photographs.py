"""A section on photographs: what the ImageNet network that comes with the set-up sees, and why."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import trained
from cnn_jax.attacks import gradient
from cnn_jax.data import decoding, preprocessing, sample_photographs
from cnn_jax.reports import explanation_figures, explanations, html, run_page
from cnn_jax.reports.html import Html
from cnn_jax.trained import Trained
from cnn_jax.visualize import methods
from cnn_jax.visualize.batching import Progress, no_progress

METHODS = ("saliency", "grad_cam")
EPS = 4 / 255


def section(
    network: Trained,
    folder: Path,
    key: jax.Array,
    *,
    target: str = "koala",
    steps: int = 10,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section: each sample photograph, two maps, and as another class.

    Args:
      target: the class that each is to be taken for, by PGD within 4/255.
      steps: of PGD.
    """
    names = [each.path.stem for each in sample_photographs.PHOTOGRAPHS]
    pixels = (
        np.stack(
            [
                preprocessing.to_array(
                    preprocessing.preprocess(
                        decoding.read(str(each.path), len(network.mean)), network.preprocessing
                    )
                )
                for each in sample_photographs.PHOTOGRAPHS
            ]
        ).astype(np.float32)
        / 255
    )
    f = trained.classifier(network)
    answer = jax.jit(lambda f, pixels: jax.nn.softmax(f(pixels)))
    before = np.asarray(answer(f, pixels))
    classes, wanted = before.argmax(axis=1), network.class_names.index(target)
    question = explanations.Question(f, pixels, classes, names)
    settings = methods.Settings(key, batch_size=len(pixels))
    maps = explanations.explain(question, METHODS, settings, progress).maps
    targets = np.full(len(pixels), wanted)
    fooled = gradient.pgd(f, pixels, classes, key, eps=EPS, steps=steps, targets=targets)
    after = np.asarray(answer(f, jnp.asarray(fooled)))
    titles = [
        f"{name}\n{network.class_names[i]}: {row[i]:.0%}"
        for name, row, i in zip(names, before, classes, strict=True)
    ]
    rows = [
        [
            explanation_figures.colour(image),
            *(explanation_figures.heat(maps[name][i], False) for name in METHODS),
            explanation_figures.colour(other),
        ]
        for i, (image, other) in enumerate(zip(pixels, np.asarray(fooled), strict=True))
    ]
    heads = ["image", *(methods.METHODS[name].title for name in METHODS), f"as {target}"]
    figure = explanation_figures.picture_table(rows, titles, heads)
    taken = int((after.argmax(axis=1) == wanted).sum())
    caption = (
        f"What {network.model.name} sees in photographs, the pixels and the places that this "
        f"depends on, and the same photographs changed by at most 4/255: {taken} of {len(names)} "
        f"are taken for {target}."
    )
    numbers = {
        "classes": {n: network.class_names[i] for n, i in zip(names, classes, strict=True)},
        f"taken for {target}": taken,
    }
    picture = run_page.picture_in(folder)(figure, "photographs", caption)
    makers = "; ".join(
        f"{each.path.stem}: {each.author}, {each.license}"
        for each in sample_photographs.PHOTOGRAPHS
    )
    return numbers, html.section("A network that knows a thousand classes", picture, makers)
