"""The sections of a page that show what a network makes of an image that is optimised."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from cnn_jax import trained
from cnn_jax.reports import ascent as ascent_report
from cnn_jax.reports import fooling as fooling_report
from cnn_jax.reports import html
from cnn_jax.reports import inversion as inversion_report
from cnn_jax.runtime.platform_loop import Progress
from cnn_jax.trained import Trained
from cnn_jax.visualize import ascent, inversion


def sections(
    network: Trained,
    pixels: Float[np.ndarray, "m h w c"],
    names: tuple[str, ...],
    class_names: tuple[str, ...],
    folder: Path,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[html.Html]:
    """Return the sections on class images, feature inversion and fooling images.

    Few steps each, for a page that is made at the end of a training run; the experiments of these
    names take more.

    Args:
      pixels: images in 0..1 to invert; the first is the photograph of the fantasy images.
      names: their titles.
      class_names: of the classes to show, the first ones of the network.
      folder: where the pictures are written too.
    """
    f, classes, shape = trained.classifier(network), len(class_names), pixels.shape[1:]
    key, batch = jax.random.key(seed), (classes, *shape)
    objective = ascent.channel(np.arange(classes))
    excited = {
        "from zeros": ascent.simonyan(f, objective, batch, steps=64, progress=progress),
        "spectrum": ascent.lucid(f, objective, batch, key, steps=96, progress=progress),
    }
    shapes = trained.layer_shapes(network, shape)
    paths = tuple(path for path in shapes if "/" not in path)
    inverted = inversion.invert_layers(
        trained.layers(network, paths), paths, pixels, key, steps=80, progress=progress
    )
    fooled = fooling_report.images(
        f, range(classes), pixels[0], key, steps=50, generations=200, children=32, progress=progress
    )
    return [
        ascent_report.section(
            excited, class_names, ascent_report.numbers(f, objective, excited, key), folder
        ),
        inversion_report.section(
            inverted, pixels, names, inversion_report.rows(inverted, pixels, shapes), folder
        ),
        fooling_report.section(fooled, class_names, fooling_report.numbers(fooled, None), folder),
    ]
