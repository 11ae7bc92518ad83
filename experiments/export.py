"""Writes a trained network for other programs: ONNX, StableHLO, safetensors.

python -m experiments.export --workdir=runs/digits
python -m experiments.export --model=resnet50 --weights=resnet50.safetensors \
    --format=onnx,stablehlo --image=photograph.jpg

Each file is run on real images beside JAX before it is kept, and NAME.json beside it says its
inputs, preprocessing, class names, hash and versions. ONNX and StableHLO take any number of images;
a detector's heads on regions are files of their own, and take any number of regions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float

from cnn_jax.data import sample_photographs
from cnn_jax.errors import UsageError
from cnn_jax.export import files, program
from cnn_jax.trained import Trained

from . import app
from .flags import subject as subjects

subjects.network_flags.define()
subjects.network_flags.define_dataset()
subjects.define_images()
subjects.define_examples()
subjects.define_output()
_FORMAT = flags.DEFINE_list(
    "format",
    list(files.FORMATS),
    "What to write: onnx, stablehlo, safetensors.",
    module_name="What",
)


def main(argv: Sequence[str]) -> None:
    del argv
    formats = list(dict.fromkeys(_FORMAT.value))
    if not formats:
        raise UsageError(f"--format is empty; give some of {', '.join(files.FORMATS)}")
    files.check_formats(formats)
    network = subjects.load_network(task=None)
    options, size = network.preprocessing, program.image_size(network)
    if size != options.image_size:  # R-CNN takes regions, and a photograph is one
        options = options._replace(image_size=size, resize=None)
        network = network._replace(preprocessing=options)
    pixels = _pixels(network)
    folder = subjects.results_folder("export", network).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
    files.export(network, pixels, folder, formats, watch=_tell)


def _tell(path: Path, told: dict[str, Any]) -> None:
    size, apart = told["bytes"] / 2**20, told["difference_from_jax"]
    print(f"{path}: {size:.1f} MiB, differs from JAX by {apart:.1e}", flush=True)


def _pixels(network: Trained) -> Float[np.ndarray, "n h w c"]:
    """The user's images, the data set's first, or else the sample photographs."""
    if flags.FLAGS.image:
        return subjects.read_files(network, flags.FLAGS.image)
    classifies = network.model.task == "classification"
    if classifies and (network.config is not None or flags.FLAGS.dataset is not None):
        dataset = subjects.load_dataset(network, answers=False)
        return subjects.first_examples(network, dataset, flags.FLAGS.examples)[0]
    return subjects.read_files(network, [each.path for each in sample_photographs.PHOTOGRAPHS])


if __name__ == "__main__":
    app.run(main)
