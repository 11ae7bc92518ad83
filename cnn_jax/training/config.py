"""The configuration of a training run: every option once, with its default, section and help.

The experiments make their flags from these fields, a recipe overrides their defaults, a checkpoint
keeps them, and evaluation rebuilds the model from them.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from cnn_jax import errors, plugins
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.models import Model, create_model
from cnn_jax.test_time_augmentation import VIEWS
from cnn_jax.training import checkpoint, losses


def option(
    default: Any,
    section: str,
    help: str,
    choices: Collection[str] | None = None,
    result: bool = True,
    needs: tuple[str, ...] = (),
    open: bool = False,
) -> Any:
    """Return a dataclass field that a flag can be made of.

    Args:
      result: whether the run's outcome depends on it; only such options must agree on resuming.
      needs: an option without which this one does nothing, and its values with which it does
        something; by default any but 0 and None.
      open: whether an address, "package.module:function", is taken beside the choices; who looks
        it up checks it.
    """
    metadata = {"section": section, "help": help, "choices": choices, "result": result}
    metadata |= {"needs": needs, "open": open}
    return dataclasses.field(default=default, metadata=metadata)


# The rules of the update by name; those from outside of this package with their function.
OPTIMIZERS: dict[str, Callable[..., Any] | None] = {
    "sgd": None,
    "adamw": None,
    "lars": None,
    "lamb": None,
    "muon": None,
}


def is_outside(optimizer: str) -> bool:
    """Return whether a rule of the update is none of this package's."""
    return OPTIMIZERS.get(optimizer, optimizer) is not None


# Options of the tasks' own losses.
OF_TASKS_LOSS = ("label_smoothing", "class_weights", "dice_weight")

# What can be recomputed in the backward pass, the least first.
RECOMPUTED = ("remat_wide", "remat", "remat_deep")

# The metrics by which a checkpoint can be the best, and whether the highest or the lowest is; by
# "none" no checkpoint is.
BETTER: dict[str, str | None] = {
    "none": None,
    "loss": "min",
    "top1_error": "min",
    "top5_error": "min",
    "top1_localization_error": "min",
    "mean_iou": "max",
    "pixel_accuracy": "max",
    "box_map50": "max",
    "mask_map50": "max",
    "box_map": "max",
    "mask_map": "max",
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that decides what a training run computes; None: derived, as the help says."""

    model: str = option(
        "resnet20",
        "Model",
        "Model to train, a name from cnn_jax.model_names() or package.module:function.",
    )
    model_options: str = option(
        "", "Model", "Options of the model's family, as in 'zero_init_residual=True, dropout=0.3'."
    )
    num_classes: int | None = option(
        None, "Model", "Number of outputs of the head; by default the data set's number of classes."
    )

    dataset: str = option(
        "digits",
        "Data",
        "Data set: digits, shapes, the name of a prepared TFDS data set, or folder:PATH "
        "with a folder for each class, or a CSV file of file, class and split; with objects "
        "coco:FOLDER (images and COCO's JSON), with masks coco:FOLDER and voc:FOLDER; or a "
        "function, package.module:function.",
    )
    mask_values: str | None = option(
        None,
        "Data",
        "Meaning of the values in the masks of voc:FOLDER, as in "
        "0:background,1:cat,255:ignored; by default the lines of FOLDER/class_names.txt, "
        "counted from 0, or PASCAL VOC's own classes.",
    )
    max_objects: int | None = option(
        None,
        "Data",
        "Room for this many objects a training image, in detection; by default what coco:FOLDER "
        "needs, else 5.",
    )
    data_dir: str | None = option(
        None,
        "Data",
        "Folder of the TFDS data sets; by default ~/tensorflow_datasets.",
        result=False,
    )
    train_split: str | None = option(
        None,
        "Data",
        "Split to train on, where TFDS slices are allowed (train[:90%]); by default the "
        "training split.",
    )
    eval_split: str | None = option(
        None,
        "Data",
        "Split to evaluate on; by default test, or validation where test has no labels.",
    )
    channels: int | None = option(
        None,
        "Data",
        "Number of channels of the images: 1 reads all as grey, 3 as colours with "
        "transparent parts on white, 4 as colours and opacity; by default the data set's, "
        "for a folder 3.",
    )
    mean: tuple[float, ...] | None = option(
        None,
        "Data",
        "Mean that is subtracted from each channel, for pixels in 0..1; by default the data "
        "set's, for a folder ImageNet's.",
    )
    std: tuple[float, ...] | None = option(
        None,
        "Data",
        "Standard deviation that each channel is divided by, for pixels in 0..1; by default "
        "the data set's, for a folder ImageNet's.",
    )
    image_size: int | None = option(
        None, "Data", "Side of the images in pixels; by default the data set's, else the model's."
    )
    start_image_size: int | None = option(
        None,
        "Data",
        "Side of the images at the start of training, in pixels, which grows to "
        "--image_size as in EfficientNetV2's training.",
    )
    image_size_stages: int = option(
        4,
        "Data",
        "Number of equally long stages in which the images grow from --start_image_size.",
        needs=("start_image_size",),
    )
    eval_image_size: int | None = option(
        None, "Data", "Side of the evaluation crop in pixels; by default that of --image_size."
    )
    eval_resize: int | None = option(
        None,
        "Data",
        "Shorter side of the image before the evaluation crop, in pixels; by default that "
        "of --eval_image_size.",
    )
    interpolation: str = option(
        "bilinear",
        "Data",
        "Interpolation by which images are resized.",
        choices=("bilinear", "bicubic"),
    )
    eval_views: str = option(
        "one",
        "Data",
        "Test-time augmentation: evaluation averages over the image alone, the image and its "
        "mirror image, its mirror images along both axes, or the first two and both "
        "shifted.",
        choices=tuple(VIEWS),
    )
    sampler: str = option(
        "shuffle",
        "Data",
        "How examples are drawn: shuffle takes every example once an epoch; balanced takes "
        "every class equally often, in epochs of as many examples as there are.",
        choices=("shuffle", "balanced"),
    )
    bad_images: str = option(
        "stop",
        "Data",
        "What an image that cannot be decoded does: stop ends the run and names it, skip takes the "
        "next one in its place and counts it.",
        choices=("stop", "skip"),
        result=False,
    )
    num_threads: int | None = option(
        None,
        "Data",
        "Number of threads that read and augment; by default one a core.",
        result=False,
    )

    crop: str = option(
        "none",
        "Augmentation",
        "Random crop: pad crops from a padded image, resized is the random-resized crop of "
        "ImageNet.",
        choices=("none", "pad", "resized"),
    )
    pad: int = option(
        4, "Augmentation", "Width of the border of --crop=pad, in pixels.", needs=("crop", "pad")
    )
    pad_mode: str = option(
        "zero",
        "Augmentation",
        "Values in the border of --crop=pad.",
        choices=("zero", "reflect"),
        needs=("crop", "pad"),
    )
    crop_scale: tuple[float, ...] = option(
        (0.08, 1.0),
        "Augmentation",
        "Smallest and largest share of the image's area for --crop=resized.",
        needs=("crop", "resized"),
    )
    flip: bool = option(
        False, "Augmentation", "Whether to mirror a random half of the images left to right."
    )
    vertical_flip: bool = option(
        False,
        "Augmentation",
        "Whether to mirror a random half of the images top to bottom, independently of --flip.",
    )
    alternating_flip: bool = option(
        False,
        "Augmentation",
        "Whether to mirror half of the images in one epoch and the other half in the next.",
    )
    policy: str = option(
        "none",
        "Augmentation",
        "Augmentation policy, RandAugment or TrivialAugment.",
        choices=("none", "randaugment", "trivialaugment"),
    )
    num_ops: int = option(
        2,
        "Augmentation",
        "Number of operations for each image under --policy=randaugment.",
        needs=("policy", "randaugment"),
    )
    magnitude: int = option(
        9,
        "Augmentation",
        "Strength of the operations under --policy=randaugment, 0 to 30.",
        needs=("policy", "randaugment"),
    )
    color_jitter: tuple[float, ...] = option(
        (0.0, 0.0, 0.0, 0.0),
        "Augmentation",
        "Strengths of the random changes of brightness, contrast, saturation and hue.",
    )
    erasing: float = option(
        0.0, "Augmentation", "Probability that a random rectangle of an image is erased."
    )
    mixup: float = option(
        0.0, "Augmentation", "Alpha of mixup's beta distribution; 0 turns it off."
    )
    cutmix: float = option(
        0.0, "Augmentation", "Alpha of CutMix's beta distribution; 0 turns it off."
    )

    steps: int | None = option(None, "Schedule", "Number of updates; give either this or --epochs.")
    epochs: float | None = option(
        None, "Schedule", "Number of passes over the data; give either this or --steps."
    )
    batch_size: int = option(
        128, "Schedule", "Number of examples in an update, over all devices and hosts."
    )
    learning_rate: float = option(
        0.1, "Schedule", "Largest learning rate, reached after the warm-up."
    )
    base_batch_size: int | None = option(
        None,
        "Schedule",
        "Batch size that --learning_rate is meant for, in proportion to which it is scaled; "
        "by default it is not scaled.",
    )
    schedule: str = option(
        "cosine",
        "Schedule",
        "How the learning rate falls after the warm-up.",
        choices=("cosine", "linear", "step", "constant"),
    )
    warmup_steps: int = option(0, "Schedule", "Number of updates of linear warm-up.")
    warmup_epochs: float | None = option(
        None, "Schedule", "Length of the linear warm-up in epochs, instead of --warmup_steps."
    )
    warmup_start: float = option(
        0.0, "Schedule", "Learning rate at which the warm-up starts, as a share of the largest."
    )
    decay_at: tuple[float, ...] = option(
        (0.5, 0.75),
        "Schedule",
        "Points at which --schedule=step reduces the learning rate, as shares of the whole run.",
        needs=("schedule", "step"),
    )
    decay_factor: float = option(
        0.1,
        "Schedule",
        "Factor by which --schedule=step multiplies the learning rate.",
        needs=("schedule", "step"),
    )
    final_learning_rate: float = option(
        0.0,
        "Schedule",
        "Learning rate at which --schedule=cosine or linear ends, as a share of the largest.",
        needs=("schedule", "cosine", "linear"),
    )

    optimizer: str = option(
        "sgd",
        "Optimizer",
        "Optimizer that makes the updates; or any of optax's, as optax.NAME, or a function, "
        "package.module:function.",
        choices=OPTIMIZERS,
        open=True,
    )
    optimizer_options: str = option(
        "",
        "Optimizer",
        "Options of the optimizer, those of optax or of muon, as in 'iterations=3, "
        "normalize=True'.",
    )
    momentum: float = option(
        0.9, "Optimizer", "Momentum of sgd, lars and muon, or beta 1 of the others."
    )
    nesterov: bool = option(
        False,
        "Optimizer",
        "Whether sgd and lars use Nesterov's momentum.",
        needs=("optimizer", "sgd", "lars"),
    )
    weight_decay: float = option(1e-4, "Optimizer", "Coefficient of the weight decay.")
    decay_norms_and_biases: bool = option(
        False,
        "Optimizer",
        "Whether weight decay includes the scales of normalisation layers and all biases.",
        needs=("weight_decay",),
    )
    loss: str | None = option(
        None,
        "Optimizer",
        "Loss of your own that is minimised, package.module:function or a registered name; by "
        "default the task's. Evaluation reports the task's in any case.",
    )
    class_weights: str | None = option(
        None,
        "Optimizer",
        "Weights of the classes in the loss: balanced (more for rare ones), a number for "
        "each class, or NAME:WEIGHT,NAME:WEIGHT; the loss is the weighted mean over the "
        "batch.",
    )
    label_smoothing: float = option(
        0.0, "Optimizer", "Share of the target that is spread evenly over all classes."
    )
    dice_weight: float = option(
        0.0, "Optimizer", "Weight of the Dice loss, added to the cross-entropy in segmentation."
    )
    clip_norm: float | None = option(
        None, "Optimizer", "Largest global norm of the gradient; by default it is not clipped."
    )
    accumulate: int | None = option(
        None,
        "Optimizer",
        "Number of parts in which the gradient of a batch is accumulated, to save memory; by "
        "default 1, or as many as --memory_limit asks for. Batch norms see one part at a time.",
    )
    norm_batch: int | None = option(
        None,
        "Optimizer",
        "How many consecutive examples share the statistics of batch norms, whatever the number of "
        "devices; by default the whole batch does.",
    )
    ema_decay: float | None = option(
        None,
        "Optimizer",
        "Decay of an exponential moving average of the weights, which is then evaluated; its n-th "
        "step decays by (1 + n) / (10 + n) at most. By default there is none.",
    )
    ema_every: int = option(
        1,
        "Optimizer",
        "Number of updates between two steps of the moving average.",
        needs=("ema_decay",),
    )
    whiten: str | None = option(
        None,
        "Optimizer",
        "Path of a convolution of the images whose filters start as a whitening of image patches.",
    )
    init_from: str | None = option(
        None,
        "Optimizer",
        "Weights to start from: pretrained or another tag of published ones, an address, "
        "hf:OWNER/NAME, a .safetensors or .pth file, or the folder of a run, whose best "
        "checkpoint is taken if it has --keep_best, else its newest intact one, with averaged "
        "weights if it has them; outputs of the head are kept for classes of the same names.",
    )
    layer_rates: str = option(
        "",
        "Optimizer",
        "Learning rates of some parameters, as multiples of the others', by regular expressions "
        "for their paths, as in 'stem|stage[12]: 0.1; head: 10'; the first that fits counts.",
    )
    freeze: str | None = option(
        None,
        "Optimizer",
        "Regular expression for the paths of parameters that are not trained. A batch norm whose "
        "scale and bias are both frozen normalizes by its running statistics, which stay as well.",
    )
    thaw_at: int | None = option(
        None,
        "Optimizer",
        "Step at which what --freeze keeps begins to be trained too, as after a new head has been "
        "trained alone; by default never.",
        needs=("freeze",),
    )

    adversary: str = option(
        "none",
        "Adversary",
        "Adversarial training: on images perturbed by PGD, by one fast step, or by TRADES.",
        choices=("none", "pgd", "fast", "trades"),
    )
    adversary_eps: float = option(
        8 / 255,
        "Adversary",
        "Budget of the training perturbation, for pixels in 0..1.",
        needs=("adversary", "pgd", "fast", "trades"),
    )
    adversary_steps: int = option(
        7,
        "Adversary",
        "Number of iterations of the training attack, of which --adversary=fast takes one.",
        needs=("adversary", "pgd", "trades"),
    )
    trades_beta: float = option(
        6.0,
        "Adversary",
        "Weight of the divergence under --adversary=trades.",
        needs=("adversary", "trades"),
    )

    dtype: str = option(
        "float32",
        "Computation",
        "Number format in which the network computes.",
        choices=("float32", "bfloat16"),
    )
    memory_limit: float | None = option(
        None,
        "Computation",
        "Memory in GiB that a training step may take on a device, by which --remat_wide, --remat, "
        "--remat_deep and --accumulate are chosen where they are not given.",
    )
    remat: bool | None = option(
        None,
        "Computation",
        "Whether to recompute the blocks' activations in the backward pass, to save memory; by "
        "default only where --memory_limit asks for it.",
    )
    remat_wide: bool = option(
        False,
        "Computation",
        "Whether to recompute in the backward pass what lies in the blocks but the outputs of "
        "convolutions to no more channels than they are given, to save memory for little time.",
    )
    remat_deep: bool = option(
        False,
        "Computation",
        "Whether to recompute what --remat does and most of the blocks' outputs too, by groups of "
        "blocks, so that memory grows as the square root of the depth; in ResNets and their kin, "
        "RegNets and ConvNeXts, else it is --remat.",
    )
    parallel: str = option(
        "jit",
        "Computation",
        "How the devices share a batch.",
        choices=("jit", "pmap"),
        result=False,
    )
    shard_state: bool = option(
        False,
        "Computation",
        "Whether each device holds a piece of the parameters, the optimizer's state and the "
        "averages, instead of all of them, to save memory.",
        result=False,
    )
    seed: int = option(
        0, "Computation", "Seed of the weights, the order of examples, augmentation and dropout."
    )
    plugin: tuple[str, ...] = option(
        (),
        "Computation",
        "Modules that register what the run uses from outside of this package.",
        result=False,
    )

    checkpoint_every: int = option(
        1000, "Output", "Number of updates between checkpoints.", result=False
    )
    keep: int = option(3, "Output", "Number of latest checkpoints that are kept.", result=False)
    keep_best: str | None = option(
        None,
        "Output",
        "Metric by which the best checkpoint is kept beside the latest ones (--step=best "
        "takes it), for which every checkpoint is evaluated; by default as in the run so "
        "far, else none.",
        choices=BETTER,
        open=True,  # to what a plugin registers
        result=False,
    )
    eval_every: int | None = option(
        None,
        "Output",
        "Number of updates between evaluations; by default only the end is evaluated.",
        result=False,
    )
    log_every: int = option(
        20, "Output", "Number of updates between lines of metrics.jsonl.", result=False
    )
    tracker: str | None = option(
        None,
        "Output",
        "Tracker that gets the numbers of metrics.jsonl too: package.module:function of your own, "
        "or cnn_jax.trackers:wandb for Weights & Biases.",
        result=False,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if isinstance(getattr(self, field.name), list):  # as JSON and flags give them
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
            choices, value = field.metadata["choices"], getattr(self, field.name)
            known = (field.default, *choices) if choices else ()
            address = field.metadata["open"] and re.search("[.:]", str(value))
            if choices and value not in known and not address:
                raise errors.unknown(f"--{field.name}", value, choices)
        if self.steps is not None and self.epochs is not None:
            raise UsageError("both --steps and --epochs are given; give one of them")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name}={value} is too small; give {least} at least")
        for name in ("label_smoothing", "ema_decay", "momentum", "warmup_start"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"--{name}={value} is out of range; give 0 or more, below 1")
        for name in OF_TASKS_LOSS if self.loss else ():
            value, default = getattr(self, name), getattr(TrainConfig, name)
            if value != default:
                raise UsageError(
                    f"--{name}={value} is of the loss that --loss={self.loss} takes the place of; "
                    "leave it out"
                )
        if self.class_weights == "balanced" and self.sampler == "balanced":
            raise UsageError(
                "--class_weights=balanced and --sampler=balanced would favour rare classes twice; "
                "give one of them"
            )
        kinds = [name for name in RECOMPUTED if getattr(self, name)]
        if len(kinds) > 1:
            raise UsageError(
                f"--{kinds[1]} recomputes what --{kinds[0]} does and more; give one of them"
            )
        if self.memory_limit is not None and self.parallel == "pmap":
            raise UsageError(
                "--memory_limit is of --parallel=jit, whose program is measured; leave one out"
            )
        if not 0 < self.adversary_eps <= 1:
            raise UsageError(
                f"--adversary_eps={self.adversary_eps} is not for pixels in 0..1; of 255 it is "
                f"{self.adversary_eps / 255:.4g}"
            )
        if any(not 0 < share <= 1 for share in self.decay_at):
            raise UsageError(f"--decay_at={self.decay_at} is not shares of the run; give 0.5,0.75")


def rematerialization(config: TrainConfig) -> bool | str:
    """Return what the networks' blocks recompute in the backward pass, see cnn_jax.layers."""
    if config.remat_deep:
        return "deep"
    return "wide" if config.remat_wide else bool(config.remat)


def refuse(config: TrainConfig, names: Iterable[str], task: str) -> None:
    """Raise UsageError where one of these options, of no use there, is not at its default."""
    for field in dataclasses.fields(config):
        if field.name in names and getattr(config, field.name) != field.default:
            raise UsageError(f"--{field.name} is not for {task}; leave it out")


def refuse_idle(config: TrainConfig, names: Iterable[str]) -> None:
    """Raise UsageError where one of these options does nothing for want of another one."""
    for field in dataclasses.fields(config):
        changed = field.name in names and getattr(config, field.name) != field.default
        if not changed or not field.metadata["needs"]:
            continue
        other, *values = field.metadata["needs"]
        value = getattr(config, other)
        if other == "optimizer" and is_outside(value):
            continue  # create_optimizer refuses what the rule does not take
        if (value not in values) if values else not value:
            wanted = f"--{other}={' or '.join(values)}" if values else f"--{other}"
            raise UsageError(f"--{field.name} does nothing without {wanted}; give both or neither")


_LEAST = {
    "steps": 1,
    "thaw_at": 1,
    "epochs": 0,
    "batch_size": 1,
    "accumulate": 1,
    "norm_batch": 1,
    "memory_limit": 0,
    "adversary_steps": 1,
    "trades_beta": 0,
    "ema_every": 1,
    "num_classes": 1,
    "max_objects": 1,
    "image_size": 1,
    "start_image_size": 1,
    "image_size_stages": 2,
    "warmup_steps": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "clip_norm": 0,
    "dice_weight": 0,
    "seed": 0,
    "checkpoint_every": 1,
    "keep": 1,
    "eval_every": 1,
    "log_every": 1,
}


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration that `dataclasses.asdict` gave, and import its plugins.

    Raises:
      UsageError: an option too many, or a plugin that is not there.
    """
    plugins.load(values.get("plugin", ()))
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    for name in values:
        if name not in known:
            raise errors.unknown("option", name, known)
    return TrainConfig(**values)


def identity(config: TrainConfig) -> dict[str, Any]:
    """Return the options on which the outcome depends: those that a resumed run must repeat."""
    fields = dataclasses.fields(config)
    return {field.name: getattr(config, field.name) for field in fields if field.metadata["result"]}


def resolve(config: TrainConfig, train_set: Dataset, default_epochs: float = 90.0) -> TrainConfig:
    """Return the configuration with all that the data set decides filled in.

    What --memory_limit decides is left to training.memory.

    Raises:
      UsageError: what the data set and the options do not agree on.
    """
    if config.loss is not None:
        losses.find(config.loss)  # or say that it is not there
    examples = len(train_set.source)
    classes = config.num_classes or train_set.num_classes
    if classes < train_set.num_classes:
        raise UsageError(
            f"--num_classes={classes} does not fit {config.dataset}, which has "
            f"{train_set.num_classes} classes; leave it out"
        )
    steps = config.steps
    if steps is None:
        epochs = default_epochs if config.epochs is None else config.epochs
        steps = max(1, round(epochs * examples / config.batch_size))
    warmup_steps = config.warmup_steps
    if config.warmup_epochs is not None:
        warmup_steps = round(config.warmup_epochs * examples / config.batch_size)
    if config.init_from and config.image_size is None:
        folder = checkpoint.checkpoint_directory(Path(config.init_from).expanduser())
        run = checkpoint.newest_config(folder) or {}
        image_size = run.get("image_size") or build_model(config, classes).image_size
    else:
        image_size = config.image_size or _image_size(config, train_set, classes)
    if config.start_image_size is not None and config.start_image_size > image_size:
        raise UsageError(
            f"images do not grow from --start_image_size={config.start_image_size} to {image_size} "
            "pixels; give a smaller one"
        )
    eval_image_size = config.eval_image_size or image_size
    if config.memory_limit is None:
        config = dataclasses.replace(
            config, accumulate=config.accumulate or 1, remat=bool(config.remat)
        )
    return dataclasses.replace(
        config,
        num_classes=classes,
        steps=steps,
        epochs=None,
        warmup_steps=min(warmup_steps, steps),
        warmup_epochs=None,
        image_size=image_size,
        eval_image_size=eval_image_size,
        eval_resize=config.eval_resize or eval_image_size,
    )


def _image_size(config: TrainConfig, dataset: Dataset, classes: int) -> int:
    """The data set's own size if it has one, else the model's."""
    height, width, _ = dataset.image_shape
    if height is not None and width is not None:
        return min(height, width)
    return build_model(config, classes).image_size


def image_sizes(config: TrainConfig) -> list[tuple[int, int]]:
    """Return (side of the images, the step at which it ends) for each part of a resolved run.

    Tan & Le 2021, "EfficientNetV2: smaller models and faster training", algorithm 1: the sides grow
    by equal amounts, here rounded to whole pixels.
    """
    if config.start_image_size is None:
        return [(config.image_size, config.steps)]
    first, last, stages = config.start_image_size, config.image_size, config.image_size_stages
    return [
        (round(first + (last - first) * i / (stages - 1)), round(config.steps * (i + 1) / stages))
        for i in range(stages)
    ]


def literal_options(text: str, flag: str = "model_options") -> dict[str, Any]:
    """Return keyword arguments from 'name=value, name=value' of Python literals.

    Args:
      flag: where the text comes from.

    Raises:
      UsageError: anything else.
    """
    try:
        call = ast.parse(f"options({text})", mode="eval").body
        named = isinstance(call.func, ast.Name) and all(each.arg for each in call.keywords)
        if call.args or not named:
            raise ValueError
        return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError) as error:
        raise UsageError(
            f"cannot read --{flag}={text!r}; write 'name=value, name=value'"
        ) from error


def before_thaw(config: TrainConfig, step: int) -> bool:
    """Return whether what --freeze names is kept in the step after `step` steps."""
    return config.freeze is not None and (config.thaw_at is None or step < config.thaw_at)


def build_model(config: TrainConfig, num_classes: int | None = None) -> Model:
    """Return the model that the configuration names."""
    classes = config.num_classes if num_classes is None else num_classes
    return create_model(config.model, classes, **literal_options(config.model_options))


def augmentation(config: TrainConfig) -> Augmentation:
    """Return the augmentation options."""
    given = {name: getattr(config, name) for name in Augmentation._fields if hasattr(config, name)}
    return Augmentation(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }
    )


def preprocessing(config: TrainConfig) -> Preprocessing:
    """Return the evaluation preprocessing of a resolved configuration."""
    return Preprocessing(config.eval_image_size, config.eval_resize, config.interpolation)
