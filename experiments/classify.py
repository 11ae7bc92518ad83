"""Says what is on photographs: the five likeliest classes of each, its objects or its regions.

python -m experiments.classify photo.jpg holiday/ 'scans/*.png'
python -m experiments.classify --model=resnet50 --weights=imagenet1k_v2 photo.jpg
python -m experiments.classify --workdir=runs/digits digit.png
python -m experiments.classify --model=maskrcnn_resnet50_fpn --weights=coco_v1 street.jpg

Files, folders (all images in them, also deeper down) and patterns; by default the ImageNet network
that comes with the set-up, and the sample photographs. A detector answers with boxes and masks, a
network for segmentation with the class of every pixel, over the photograph and in its own pixels.
Leaves results.json, a CSV file (of classes, objects or regions) and a page; masks/ has the regions.
A file that cannot be read is named and left out, and the exit status is then 1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cnn_jax import answers
from cnn_jax.data import decoding, photographs, sample_photographs
from cnn_jax.errors import UsageError
from cnn_jax.reports import classified, mask_figures, run_page
from cnn_jax.runtime.progress import bar

from . import app
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
subjects.define_images()
subjects.define_output()
_TOP = flags.DEFINE_integer(
    "top",
    None,
    "Number of classes, objects or regions that are told of each photograph; by default five "
    "classes, and all objects and regions.",
    lower_bound=1,
)
_LEAST = flags.DEFINE_float(
    "least",
    None,
    "Least probability of a class, score of an object or share of the pixels that is told; by "
    "default .5 of objects and 0 of the others.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Photographs at a time; changes no result.", lower_bound=1
)


def main(argv: Sequence[str]) -> None:
    files = photographs.find([*argv[1:], *flags.FLAGS.image])
    if not argv[1:] and not flags.FLAGS.image:
        files = [str(each.path) for each in sample_photographs.PHOTOGRAPHS]
    network = network_flags.load_network(task=None)
    task, names = network.model.task, answers.class_names(network)
    size = min(_BATCH_SIZE.value, len(files))
    ask = answers.asker(network, top=_TOP.value, least=_LEAST.value, batch_size=size)
    images, pictures, masks, broken = [], [], {}, {}
    short_name = dict(zip(files, classified.short_names(files), strict=True))
    for start in bar("batch")(range(0, len(files), size), len(range(0, len(files), size))):
        read = {}
        for file in files[start : start + size]:
            try:
                read[file] = decoding.read(file, len(network.mean))
            except UsageError as error:
                broken[file] = str(error)
        for (file, photograph), answer in zip(
            read.items(), ask([*read.values()]) if read else [], strict=True
        ):
            images.append(classified.row(file, answer, task))
            if answer.regions is not None:
                name = f"masks/{len(images):05}_{Path(file).stem}.png"
                masks[name] = mask_figures.indexed_png(answer.regions, network.model.num_classes)
                images[-1]["mask"] = name
            if len(pictures) < classified.SHOWN:
                pictures.append(classified.picture(short_name[file], photograph, answer, names))
    for problem in broken.values():
        print(f"left out: {problem}", file=sys.stderr)
    if not images:
        raise UsageError("none of the photographs could be read")
    config = subjects.configuration(network) | {"files": files}
    if argv[1:]:
        config.pop("sample_photographs", None)
    folder = subjects.open_folder("classify", network, config=config)
    print("\n".join(classified.lines(images, task)))
    classified.write_csv(folder / f"{classified.KINDS[task]}.csv", images, task)
    for name, png in masks.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(png)
    section = classified.section(images, task, pictures, broken)
    results = {"images": images, "left_out": broken}
    run_page.finish(folder, classified.TITLES[task], [section], results, network=network)
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main, positional="IMAGE ...")
