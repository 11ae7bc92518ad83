"""A patch to print: a round sticker by which the network sees a class wherever it lies.

python -m experiments.patch --target=toaster
python -m experiments.patch --target=toaster --judge=tf_efficientnet_lite1 --image=holiday/
python -m experiments.patch --workdir=runs/shapes --target=star

Made on crops of every other photograph, by default the sample ones, or on the training split of a
run; judged on crops of the others, or on the evaluation split, at several sizes, beside a patch of
the same pixels in another order. patch.png is to be printed, 10 cm wide at 300 dots an inch.
"""

from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from cnn_jax import answers, trained
from cnn_jax.attacks import loop, patch
from cnn_jax.data import decoding, photographs
from cnn_jax.data.classes import class_number
from cnn_jax.errors import UsageError
from cnn_jax.reports import judged
from cnn_jax.reports import patch as patch_report
from cnn_jax.runtime.progress import bar

from . import app
from .flags import attacks as attack_flags
from .flags import judge as judge_flags
from .flags import network as network_flags
from .flags import subject as subjects

network_flags.define()
network_flags.define_dataset()
subjects.define_images()
subjects.define_examples()
subjects.define_output()
judge_flags.define()
_USUAL = "toaster"  # Brown et al.'s

_TARGET = flags.DEFINE_string(
    "target",
    None,
    "Class that is to be seen, by name or number; by default the paper's, a toaster.",
    module_name="Attack",
)
_MADE_OF = flags.DEFINE_integer(
    "made_of",
    64,
    "Number of crops, or of images of the training split, that the patch is made of.",
    lower_bound=1,
    module_name="Attack",
)
_SIZE = flags.DEFINE_integer(
    "patch_size",
    None,
    "Height and width of the patch in pixels; by default half of the images'.",
    lower_bound=4,
    module_name="Attack",
)
_AREAS = flags.DEFINE_list(
    "areas",
    ["0.05", "0.25"],
    "Least and largest share of the image that the patch covers while it is made.",
    module_name="Attack",
)
_JUDGED_AT = flags.DEFINE_list(
    "judged_at",
    ["0.02", "0.05", "0.1", "0.2", "0.3"],
    "Shares of the image that it covers when it is judged.",
    module_name="Attack",
)
_DEGREES = flags.DEFINE_float(
    "degrees",
    45.0,
    "Degrees by which it is turned at most, either way, while it is made and judged.",
    lower_bound=0.0,
    upper_bound=180.0,
    module_name="Attack",
)
_LIGHT = flags.DEFINE_float(
    "light",
    0.1,
    "Share by which its contrast and brightness vary, as print and lamps have it.",
    lower_bound=0.0,
    upper_bound=1.0,
    module_name="Attack",
)
_STEPS = flags.DEFINE_integer(
    "attack_steps", 200, "Number of steps of Adam.", lower_bound=1, module_name="Attack"
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 8, "Number of images a step.", lower_bound=1, module_name="Attack"
)


def main(argv: Sequence[str]) -> None:
    del argv
    network = network_flags.load_network()
    names = answers.class_names(network)
    seen = _target(names)
    areas = tuple(map(attack_flags.number, _AREAS.value))
    if len(areas) != 2:
        raise UsageError(f"--areas={','.join(_AREAS.value)} is not two numbers; give least,largest")
    judged_at = sorted(map(attack_flags.number, _JUDGED_AT.value))
    for pair in (areas, *((area, area) for area in judged_at)):
        patch.check_areas(*pair)
    images, held_out = _images(network)
    side = held_out.shape[1]
    networks = {network.model.name: network}
    judge = judge_flags.load(network)
    if judge:
        networks[judge.model.name] = judge
    functions = {name: trained.classifier(each) for name, each in networks.items()}
    targets = {name: answers.class_names(each).index(seen) for name, each in networks.items()}
    for name, f in functions.items():
        if not judged.takes(f, held_out.shape[1:]):
            raise UsageError(f"{name} takes no images of {side} pixels; give another --judge")
    folder = subjects.open_folder("patch", network)

    by_making, by_judging, by_order = jax.random.split(jax.random.key(flags.FLAGS.seed), 3)
    turned = {"degrees": _DEGREES.value, "light": _LIGHT.value}
    made = patch.adversarial_patch(
        functions[network.model.name],
        images,
        targets[network.model.name],
        by_making,
        size=_SIZE.value or side // 2,
        areas=areas,
        steps=_STEPS.value,
        batch_size=_BATCH_SIZE.value,
        progress=bar("step"),
        **turned,
    )
    np.savez_compressed(folder / "patch.npz", patch=made)
    pixels = jax.random.permutation(by_order, made.reshape(-1, made.shape[-1]))
    ways = {"patch": made, "its pixels shuffled": np.asarray(pixels).reshape(made.shape)}
    batching = loop.Batching(_BATCH_SIZE.value, tuple(jax.local_devices()))
    rates = {way: {name: [] for name in networks} for way in ways}
    for i, area in enumerate(judged_at):
        for way, each in ways.items():
            places = jax.random.fold_in(by_judging, i)
            laid = patch.laid_at_random(held_out, each, places, area=area, **turned)
            for name, f in functions.items():
                rate = patch.success_rate(f, held_out, laid, targets[name], batching)
                rates[way][name].append(rate)
        told = ", ".join(f"{name} {row[-1]:.0%}" for name, row in rates["patch"].items())
        print(f"on {area:.0%} of the image: {told} of {len(held_out)} others seen as {seen}")
    largest = jax.random.fold_in(by_judging, len(judged_at) - 1)
    shown = patch.laid_at_random(held_out, made, largest, area=judged_at[-1], **turned)
    f = functions[network.model.name]
    before, after = (loop.predictions(f, x, batching) for x in (held_out, shown))
    results = {
        "target": seen,
        "areas": judged_at,
        "made_of": len(images),
        "held_out": len(held_out),
        "success": rates,
    }
    captions = [f"{names[i]} → {names[j]}" for i, j in zip(before, after, strict=True)]
    patch_report.write(folder, results, made, shown, captions, network)


def _target(names: Sequence[str]) -> str:
    """The class of --target by its name; without the flag the paper's, where the network has it."""
    if _TARGET.value is not None:
        return names[class_number(_TARGET.value, names)]
    if _USUAL not in names:
        raise UsageError(
            "--target is missing; give the class that is to be seen, by name or number"
        )
    return _USUAL


def _images(network: trained.Trained) -> tuple[np.ndarray, np.ndarray]:
    """What the patch is made of, and what it is judged on."""
    files = subjects.image_files(network)
    if not files:
        training = network_flags.load_dataset(network, split="train")
        held_out = network_flags.load_dataset(network)
        made_of, _ = subjects.first_examples(network, training, _MADE_OF.value)
        return made_of, subjects.first_examples(network, held_out, flags.FLAGS.examples)[0]
    read = [decoding.read(file, len(network.mean)) for file in files]
    size, count = network.preprocessing.image_size, flags.FLAGS.examples * (len(files) // 2)
    return photographs.crops_apart(read, _MADE_OF.value, count, size, flags.FLAGS.seed)


if __name__ == "__main__":
    app.run(main)
