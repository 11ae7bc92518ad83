"""Says what is on photographs: the five likeliest classes of each, by name.

python -m experiments.classify photo.jpg holiday/ 'scans/*.png'
python -m experiments.classify --model=resnet50 --weights=imagenet1k_v2 photo.jpg
python -m experiments.classify --workdir=runs/digits digit.png

Files, folders (all images in them, also deeper down) and patterns; by default the ImageNet network
that comes with the set-up, and the sample photographs. Leaves results.json, classes.csv and a page.
A file that cannot be read is named and left out, and the exit status is then 1.
"""

import sys
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.data import decoding, photographs, preprocessing, sample_photographs
from cnn_jax.errors import UsageError
from cnn_jax.reports import classified, run_page
from cnn_jax.runtime.progress import bar

from . import app
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
subjects.define_images()
subjects.define_output()
_TOP = flags.DEFINE_integer(
    "top", 5, "Number of classes that are told of each photograph.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Photographs at a time; changes no result.", lower_bound=1
)


def main(argv: Sequence[str]) -> None:
    files = photographs.find([*argv[1:], *flags.FLAGS.image])
    if not argv[1:] and not flags.FLAGS.image:
        files = [str(each.path) for each in sample_photographs.PHOTOGRAPHS]
    network = network_flags.load_network()
    names = network.class_names
    names += tuple(map(str, range(len(names), network.model.num_classes)))
    top = min(_TOP.value, len(names))
    size = min(_BATCH_SIZE.value, len(files))
    classify = jax.jit(lambda f, pixels: jax.lax.top_k(jax.nn.softmax(f(pixels)), top))
    f = trained.classifier(network)
    images, shown, broken = [], [], {}
    for start in bar("batch")(range(0, len(files), size), len(range(0, len(files), size))):
        read = []
        for file in files[start : start + size]:
            try:
                image = decoding.read(file, len(network.mean))
            except UsageError as error:
                broken[file] = str(error)
                continue
            read.append((file, preprocessing.preprocess(image, network.preprocessing)))
        if not read:
            continue
        pixels = np.stack([preprocessing.to_array(image) for _, image in read])
        pixels = np.pad(pixels, [(0, size - len(read)), *[(0, 0)] * 3]).astype(np.float32) / 255
        probabilities, indices = map(np.asarray, classify(f, pixels))
        for (file, image), row, of in zip(read, probabilities, indices, strict=False):
            classes = [
                {"name": names[i], "index": int(i), "probability": float(p)}
                for p, i in zip(row, of, strict=True)
            ]
            images.append({"file": file, "classes": classes})
            if len(shown) < classified.SHOWN:
                shown.append(image)
    for problem in broken.values():
        print(f"left out: {problem}", file=sys.stderr)
    if not images:
        raise UsageError("none of the photographs could be read")
    config = subjects.configuration(network) | {"files": files}
    if argv[1:]:
        config.pop("sample_photographs", None)
    folder = app.open_free_workdir(subjects.results_folder("classify", network), config)
    print("\n".join(classified.lines(images)))
    classified.write_csv(folder / "classes.csv", images)
    section = classified.section(images, shown, broken)
    results = {"images": images, "left_out": broken}
    run_page.finish(folder, "Photographs by class", [section], results, network=network)
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main, positional="IMAGE ...")
