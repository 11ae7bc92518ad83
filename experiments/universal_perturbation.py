"""One perturbation for all images: how often it fools the network, and other networks.

python -m experiments.universal_perturbation --workdir=runs/digits --eps=32/255
python -m experiments.universal_perturbation --workdir=runs/digits --method=sgd --other=runs/lenet
python -m experiments.universal_perturbation --image=holiday/

It is made on images of the training split and measured on the evaluation split, for several numbers
of images; with --other, also on those networks, and theirs on this one. Of photographs, by default
the sample ones, it is made on crops of every other one and measured on crops of the others.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags

from cnn_jax import trained
from cnn_jax.attacks import checks, loop, masking, universal
from cnn_jax.data import decoding, photographs
from cnn_jax.errors import UsageError
from cnn_jax.reports import universal as universal_report

from . import app
from .flags import attacks as attack_flags
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
network_flags.define_dataset()
subjects.define_images()
subjects.define_examples()
subjects.define_output()
BATCH = 8  # crops of photographs at a step
METHODS = {"deepfool": universal.universal_deepfool, "sgd": universal.universal_sgd}

_METHOD = flags.DEFINE_enum(
    "method",
    None,
    [*METHODS],
    "Method that makes the perturbation: DeepFool from image to image, or SGD on the "
    "loss of all images; by default the former of a data set and the latter of photographs.",
    module_name="Attack",
)
_NORM = flags.DEFINE_enum(
    "norm", "linf", ["linf", "l2"], "Norm that measures the perturbation.", module_name="Attack"
)
_EPS = flags.DEFINE_string(
    "eps",
    "10/255",
    "Budget of the perturbation, for pixels in 0..1, as in 0.03 or 10/255.",
    module_name="Attack",
)
_EPOCHS = flags.DEFINE_integer(
    "attack_epochs",
    10,
    "Largest number of passes over the images.",
    lower_bound=1,
    module_name="Attack",
)
_COUNTS = flags.DEFINE_list(
    "made_of",
    None,
    "Numbers of training images from which the perturbation is made; by default 10, 50 and 200 of "
    "a data set, 8 and 32 crops of photographs.",
    module_name="Attack",
)
_OTHER = flags.DEFINE_multi_string(
    "other",
    [],
    "Folder of another run on the same data, to which the perturbation is transferred.",
    module_name="What",
)


def main(argv: Sequence[str]) -> None:
    del argv
    network = network_flags.load_network()
    networks = {network.model.name: network}
    for folder in _OTHER.value:
        other = trained.from_workdir(folder, averaged=not flags.FLAGS.raw_weights)
        networks[_free_name(other.model.name, networks)] = other
    eps = attack_flags.number(_EPS.value)
    files = subjects.image_files(network)
    default = ["8", "32"] if files else ["10", "50", "200"]
    counts = sorted(attack_flags.count(text) for text in _COUNTS.value or default)
    method = _METHOD.value or ("sgd" if files else "deepfool")
    if files:
        read = [decoding.read(file, len(network.mean)) for file in files]
        size, judged = network.preprocessing.image_size, flags.FLAGS.examples * (len(files) // 2)
        seed = flags.FLAGS.seed
        images, held_out = photographs.crops_apart(read, counts[-1], judged, size, seed)
        labels = None
    else:
        held_out, labels = subjects.first_examples(
            network, network_flags.load_dataset(network), flags.FLAGS.examples
        )
        training = network_flags.load_dataset(network, split="train")
        images, _ = subjects.first_examples(network, training, counts[-1])
    checks.check_eps(eps, _NORM.value, images[0].size)
    for name, other in networks.items():
        if other.preprocessing.image_size != network.preprocessing.image_size:
            raise UsageError(f"{name} takes images of another size; transfer needs equal ones")
    folder = subjects.open_folder("universal_perturbation", network)

    size = min(BATCH, counts[0]) if files else loop.DEFAULT.size
    batching = loop.Batching(size, tuple(jax.local_devices()))
    key = jax.random.key(flags.FLAGS.seed)
    functions = {name: trained.classifier(each) for name, each in networks.items()}

    def make(name: str, count: int) -> np.ndarray:
        return METHODS[method](
            functions[name],
            images[:count],
            key,
            eps=eps,
            norm=_NORM.value,
            epochs=_EPOCHS.value,
            batching=batching,
        )

    own = network.model.name
    rates, perturbations = [], {}
    for count in counts:
        perturbations[own] = make(own, count)
        rate = universal.fooling_rate(functions[own], held_out, perturbations[own], batching)
        rates.append(rate)
        print(f"made of {count} images: fools {rates[-1]:.1%} of {len(held_out)} others")
    perturbations |= {name: make(name, counts[-1]) for name in networks if name != own}
    saved = Path(folder) / "universal.npz"
    np.savez_compressed(saved, **perturbations)
    with np.load(saved) as arrays:  # what is reported is what lies in the file
        perturbations = dict(arrays)
    matrix = universal.transfer(functions, perturbations, held_out, batching)
    changed = universal.add(held_out, perturbations[own])
    before, after = (loop.predictions(functions[own], x, batching) for x in (held_out, changed))
    if labels is None:  # the user's own images: what the network sees in them
        labels = before
    doubts = masking.vanishing(masking.without_gradient(functions[own], held_out, before, batching))
    results = {
        "method": method,
        "norm": _NORM.value,
        "eps": eps,
        "held_out": len(held_out),
        "made_of": counts,
        "fooling_rate": rates,
        "clean_accuracy": float((before == labels).mean()),
        "accuracy": float((after == labels).mean()),
        "doubts": doubts,
        "networks": list(networks),
        "transfer": matrix,
    }
    names = network.class_names or tuple(map(str, range(network.model.num_classes)))
    universal_report.write(
        folder,
        results,
        perturbations[own],
        held_out,
        changed,
        [names[i] for i in before],
        [names[i] for i in after],
    )
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)
    print(f"accuracy {results['clean_accuracy']:.1%} -> {results['accuracy']:.1%}")


def _free_name(name: str, taken: dict) -> str:
    """Return the name, numbered where it is taken."""
    number = 2
    free = name
    while free in taken:
        free = f"{name} {number}"
        number += 1
    return free


if __name__ == "__main__":
    app.run(main)
