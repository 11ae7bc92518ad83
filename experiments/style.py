"""Style transfer: one photograph in the style of another.

python -m experiments.style --workdir=runs/digits --image=photo.jpg --style=painting.jpg
python -m experiments.style --model=vgg19 --weights=vgg19.pth --content_layers=relu4_2 \\
    --style_layers=relu1_1,relu2_1,relu3_1,relu4_1,relu5_1 --image=... --style=... \\
    --parameterization=pixels --content_weight=1 --keep_color
"""

import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.data import photographs, sample_photographs
from cnn_jax.errors import UsageError, unknown
from cnn_jax.reports import html, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import batching, inversion, style
from cnn_jax.visualize.lbfgs import lbfgs

from . import app
from .flags import memory as memory_flags
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
subjects.define_images()
subjects.define_output()
memory_flags.define()
_OPTIMIZERS = {"lbfgs": lambda steps: lbfgs(), "adam": lambda steps: inversion.adam(0.05, steps)}
_USUAL = {"spectrum": "adam", "pixels": "lbfgs"}
_STYLE = flags.DEFINE_string(
    "style", None, "Image whose style is transferred.", module_name="Style"
)
_LONGEST_SIDE = flags.DEFINE_integer(
    "longest_side",
    320,
    "Longest side in pixels, to which larger images are shrunk.",
    module_name="Style",
)
_CONTENT_LAYERS = flags.DEFINE_list(
    "content_layers",
    None,
    "Paths of the layers that keep the content; by default one, half way up.",
    module_name="Style",
)
_STYLE_LAYERS = flags.DEFINE_list(
    "style_layers",
    None,
    "Paths of the layers that give the style; by default five, up to the content's and beyond.",
    module_name="Style",
)
_CONTENT_WEIGHT = flags.DEFINE_float(
    "content_weight", 0.1, "Relative weight of the content loss.", module_name="Style"
)
_STYLE_WEIGHT = flags.DEFINE_float(
    "style_weight", 1.0, "Relative weight of the style loss.", module_name="Style"
)
_VARIATION_WEIGHT = flags.DEFINE_float(
    "variation_weight", 1e-3, "Weight of the mean total variation.", module_name="Style"
)
_SCALES = flags.DEFINE_integer(
    "scales",
    1,
    "Number of image scales, each half the size of the next.",
    lower_bound=1,
    module_name="Style",
)
_KEEP_COLOR = flags.DEFINE_boolean(
    "keep_color",
    False,
    "Whether to keep the photograph's colours, so that only its luminance takes the style.",
    module_name="Style",
)
_PARAMETERIZATION = flags.DEFINE_enum(
    "parameterization",
    "spectrum",
    list(_USUAL),
    "Whether the image is sought by its spectrum in decorrelated colours, which serves networks "
    "of any family, or by its pixels, as Gatys et al. did with VGG.",
    module_name="Style",
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer",
    None,
    list(_OPTIMIZERS),
    "Optimizer of the image; by default adam of a spectrum, and lbfgs of pixels.",
    module_name="Style",
)
_STEPS = flags.DEFINE_integer(
    "steps",
    200,
    "Number of evaluations of the network at each scale.",
    lower_bound=1,
    module_name="Style",
)


def chosen_layers(known: dict[str, tuple[int, ...]]) -> tuple[list[str], list[str]]:
    """Return the paths of the content and of the style."""
    for path in (_CONTENT_LAYERS.value or []) + (_STYLE_LAYERS.value or []):
        if path not in known:
            raise unknown("layer", path, known)
        if len(known[path]) != 3:
            raise UsageError(f"{path} has no height and width; take a convolution or a block")
    children = [path for path, shape in known.items() if "/" not in path and len(shape) == 3]
    spread = np.unique(np.linspace(0, len(children) - 1, 7).round().astype(int)[:-1])
    return (
        _CONTENT_LAYERS.value or [children[len(children) // 2]],
        _STYLE_LAYERS.value or [children[i] for i in spread],
    )


def main(argv: Sequence[str]) -> None:
    del argv
    network = network_flags.load_network()
    files = subjects.image_files(network)
    if not flags.FLAGS.image:
        files = files[:1]
    style_file = _STYLE.value
    if style_file is None and network.config is None:
        style_file = str(sample_photographs.STYLE.path)
    if len(files) != 1 or style_file is None:
        raise UsageError("give one --image=FILE, whose content is kept, and --style=FILE")
    channels, size = len(network.mean), network.preprocessing.image_size
    content, styled = (
        photographs.read(file, channels, _LONGEST_SIDE.value) for file in (files[0], style_file)
    )
    content_layers, style_layers = chosen_layers(
        trained.layer_shapes(network, (size, size, channels))
    )
    f = trained.layers(network, dict.fromkeys(content_layers + style_layers))
    for image in (content, styled):  # raises where one does not fit
        batching.within_memory(f, image[None], memory_flags.limit())
    folder = subjects.open_folder("style", network)
    start = time.perf_counter()
    found = style.transfer(
        f,
        content,
        styled,
        content_weights=dict.fromkeys(content_layers, 1 / len(content_layers)),
        style_weights=dict.fromkeys(style_layers, 1 / len(style_layers)),
        content_weight=_CONTENT_WEIGHT.value,
        style_weight=_STYLE_WEIGHT.value,
        variation_weight=_VARIATION_WEIGHT.value,
        scales=_SCALES.value,
        keep_color=_KEEP_COLOR.value,
        spectrum=_PARAMETERIZATION.value == "spectrum",
        optimizer=_OPTIMIZERS[_OPTIMIZER.value or _USUAL[_PARAMETERIZATION.value]](_STEPS.value),
        steps=_STEPS.value,
        progress=bar("step"),
    )
    seconds = time.perf_counter() - start
    results = {
        "gram_error": found.gram_error,
        "content_error": found.content_error,
        "loss": [[history[0], history[-1]] for history in found.history],
        "seconds": seconds,
        "source": network.source,
    }
    pictures = {"content": content, "style": styled, "result": found.image}
    for name, image in pictures.items():
        photographs.to_pillow(image).save(folder / f"{name}.png")
    section = html.section(
        "Style transfer",
        html.figures(
            *(
                html.figure((folder / f"{name}.png").read_bytes(), name.capitalize() + ".")
                for name in pictures
            )
        ),
        html.table(
            ["style layer", "||G - A||² / ||A||² of the content", "of the result"],
            [(path, *errors) for path, errors in found.gram_error.items()],
        ),
        html.table(["content layer", "||F - P||² / ||P||²"], list(found.content_error.items())),
    )
    for path, (before, after) in found.gram_error.items():
        print(f"{path:<28} Gram error {before:.3g} -> {after:.3g}")
    run_page.finish(
        folder,
        f"Style transfer with {network.model.name}",
        [section],
        results,
        "The activations of one image, the Gram matrices of another.",
    )


if __name__ == "__main__":
    app.run(main)
