"""DeepDream: a photograph as a layer of the network dreams it.

python -m experiments.dream --workdir=runs/digits --image=photo.jpg --layers=stage2_block3
python -m experiments.dream --workdir=runs/digits --image=photo.jpg --guide=other.jpg --frames=40

The image keeps its size. Several layers are dreamt as a mixture. A large image is cut into tiles,
which changes nothing: the seams are exact.
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.data import photographs
from cnn_jax.errors import UsageError
from cnn_jax.programs import layer_table
from cnn_jax.reports import html, run_page
from cnn_jax.runtime.progress import bar
from cnn_jax.visualize import dream

from . import app
from .flags import layers as layer_flags
from .flags import memory as memory_flags
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
subjects.define_images()
subjects.define_output()
layer_flags.define()
memory_flags.define()
_LONGEST_SIDE = flags.DEFINE_integer(
    "longest_side",
    None,
    "Longest side in pixels, to which a larger photograph is shrunk.",
    module_name="Dream",
)
_GUIDE = flags.DEFINE_string(
    "guide", None, "Image whose features are to appear in the dream.", module_name="Dream"
)
_OCTAVES = flags.DEFINE_integer(
    "octaves", 4, "Number of image scales (octaves).", lower_bound=1, module_name="Dream"
)
_OCTAVE_SCALE = flags.DEFINE_float(
    "octave_scale", 1.4, "Ratio of the sizes of two successive octaves.", module_name="Dream"
)
_ITERATIONS = flags.DEFINE_integer(
    "iterations",
    10,
    "Number of steps of gradient ascent at each octave.",
    lower_bound=1,
    module_name="Dream",
)
_STEP_SIZE = flags.DEFINE_float(
    "step_size",
    1.5,
    "Step size, in units of 1/255, for a pixel whose gradient has the mean magnitude.",
    module_name="Dream",
)
_JITTER = flags.DEFINE_integer(
    "jitter", 32, "Largest random shift of the image before a step, in pixels.", module_name="Dream"
)
_TILE = flags.DEFINE_integer(
    "tile",
    None,
    "Side of a tile in pixels; by default as large as --memory_limit allows.",
    lower_bound=1,
    module_name="Dream",
)
_FRAMES = flags.DEFINE_integer(
    "frames", 0, "Number of frames of a zooming film; 0 makes none.", module_name="Movie"
)
_ZOOM = flags.DEFINE_float(
    "zoom", 1.05, "Magnification from one frame to the next.", module_name="Movie"
)
_TURN = flags.DEFINE_float(
    "turn", 0.0, "Rotation from one frame to the next, in degrees.", module_name="Movie"
)


def main(argv: Sequence[str]) -> None:
    del argv
    network = network_flags.load_network()
    files = subjects.image_files(network)
    if not flags.FLAGS.image:
        files = files[:1]
    if len(files) != 1:
        raise UsageError("a dream starts from one image; give --image=FILE once")
    channels = len(network.mean)
    image = photographs.read(files[0], channels, _LONGEST_SIDE.value)
    size = network.preprocessing.image_size
    paths = layer_flags.chosen(network, (size, size, channels))
    shapes = trained.layer_shapes(network, (size, size, channels))
    if flags.FLAGS.layers is None:  # half way up
        paths = tuple(path for path in paths if len(shapes[path]) == 3)
        paths = paths[len(paths) // 2 :][:1]
    for path in paths:
        if len(shapes[path]) != 3:
            raise UsageError(
                f"{path} is without height and width; dream with a convolution or a block"
            )
    f = trained.layers(network, paths)
    objective = dream.energy()
    if _GUIDE.value is not None:
        guide = photographs.read(_GUIDE.value, channels, _LONGEST_SIDE.value)
        objective = dream.guided(jax.jit(f)(guide[None]))
    images = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    analysis = layer_table.analyse(network.model.apply, network.variables, images)
    reach = layer_table.largest_receptive_field(analysis, paths)
    if _TILE.value is None:
        tiles = dream.tiles_within(f, image[None], reach, memory_flags.limit())
    else:
        tiles = dream.Tiles(_TILE.value, reach)
    folder = subjects.open_folder("dream", network)
    options = {
        "objective": objective,
        "octaves": _OCTAVES.value,
        "octave_scale": _OCTAVE_SCALE.value,
        "iterations": _ITERATIONS.value,
        "step_size": _STEP_SIZE.value / 255,
        "jitter": _JITTER.value,
        "tiles": tiles,
    }
    key, start = jax.random.key(flags.FLAGS.seed), time.perf_counter()
    dreamt = dream.dream(f, image[None], key, progress=bar("step"), **options)
    seconds = time.perf_counter() - start
    before, after = (
        float(dream.gradient(f, objective, x, tiles)[0][0]) for x in (image[None], dreamt)
    )
    photographs.to_pillow(dreamt[0]).save(folder / "dream.png")
    parts = [
        html.figures(
            html.figure(_png(folder, "image", image), "The image."),
            html.figure((folder / "dream.png").read_bytes(), "The dream."),
        ),
        html.metrics({"layers": ", ".join(paths), "objective": before, "of the dream": after}),
    ]
    if _FRAMES.value:
        frames = dream.zoom(
            f, image[None], key, frames=_FRAMES.value, magnification=_ZOOM.value,
            degrees=_TURN.value, **options,
        )  # fmt: skip
        frames = [np.asarray(frame[0]) for frame in bar("step")(frames, _FRAMES.value)]
        (folder / "frames").mkdir(exist_ok=True)
        for i, frame in enumerate(frames):
            photographs.to_pillow(frame).save(folder / "frames" / f"{i:04d}.png")
        photographs.write_gif(folder / "zoom.gif", frames)
    results = {
        "layers": paths,
        "objective_before": before,
        "objective_after": after,
        "frames": _FRAMES.value,
        "seconds": seconds,
        "source": network.source,
    }
    print(f"{', '.join(paths)}: objective {before:.4g} -> {after:.4g} in {seconds:.1f} s")
    run_page.finish(
        folder,
        f"DeepDream of {network.model.name}",
        [html.section("Dream", *parts)],
        results,
        "The image, changed so that these layers see more of what they see in it.",
    )


def _png(folder, name: str, image: np.ndarray) -> bytes:
    photographs.to_pillow(image).save(folder / f"{name}.png")
    return (folder / f"{name}.png").read_bytes()


if __name__ == "__main__":
    app.run(main)
