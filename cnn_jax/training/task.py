"""The table of tasks: what training and evaluation do for one kind of network, a row each."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cnn_jax import detection_evaluation, errors, evaluation, plugins
from cnn_jax.data import augmentation, datasets, masks, pipeline
from cnn_jax.data import detection as objects
from cnn_jax.data import localization as boxed
from cnn_jax.data import segmentation as masked
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.evaluation import Scoring
from cnn_jax.models import Model
from cnn_jax.models.registry import find
from cnn_jax.runtime import parallel
from cnn_jax.tasks import classification, localization, segmentation
from cnn_jax.training import config as configs
from cnn_jax.training import detector, losses
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.objective import Batch, ClassWeights, Objective, of_outputs

# Szegedy et al. 2015, section 5: the auxiliary classifiers' share of the loss
AUXILIARY_WEIGHT = 0.3


class Task(NamedTuple):
    """A kind of network, from its data to its metrics.

    name: as in the registry.
    reads: the options that it reads of those that some task of TASKS does not; what others read and
      it does not is refused.
    load(name, split, data_dir) -> Dataset, that of masks takes mask_values too.
    splits(name, data_dir) -> (to train on, to evaluate on).
    resolve(config, training set, evaluation set) -> config, with all filled in that these data
      decide; UsageError where they and the options do not agree.
    train_batches(dataset, config, image_size, start_step, process_index, process_count,
      balanced_by) -> batches without end, as data.pipeline.train_batches yields them.
    evaluation_batches: with the arguments of data.pipeline.evaluation_batches.
    objective: see training.objective.
    evaluator(model, dataset, config, devices) -> evaluate(variables) -> metrics of a whole split;
      {} where there is nothing to measure.
    logged: the numbers of an evaluation that go into the log, and by which a checkpoint can be the
      best.  headline: metrics -> a line of them.
    class_counts(dataset) -> int [classes]: how often each class is there to be learnt.
    total_weight(batch, class_weights) -> what the loss divides its sum by; None: the examples.
    first_class: the class that a label 0 means, see data.classes.matched.
    first_key(seed) -> the key of the first weights; None: that of initial_variables.
    """

    name: str
    reads: tuple[str, ...]
    load: Callable[..., Dataset]
    splits: Callable[[str, str | None], tuple[str, str]]
    resolve: Callable[[TrainConfig, Dataset, Dataset], TrainConfig]
    train_batches: Callable[..., Iterator[Batch]]
    evaluation_batches: Callable[..., Iterator[Batch]]
    objective: Objective
    evaluator: Callable[..., Callable[[PyTree], dict[str, Any]]]
    logged: tuple[str, ...]
    headline: Callable[[Mapping[str, Any]], str]
    class_counts: Callable[[Dataset], np.ndarray] | None = None
    total_weight: Callable[[Batch, ClassWeights], Array | None] = lambda batch, class_weights: None
    first_class: int = 0
    first_key: Callable[[int], Array] | None = None


def check_options(config: TrainConfig, task: Task) -> None:
    """Raise UsageError where an option is given that does nothing to the task."""
    special = {name for each in TASKS.values() for name in each.reads}
    if config.eval_image_size == config.image_size:  # as a resolved configuration has it
        special -= {"eval_image_size"}
        if config.eval_resize == config.eval_image_size:
            special -= {"eval_resize"}
    configs.refuse(config, special - {*task.reads}, task.name)


def _usual_splits(name, data_dir):
    return datasets.training_split(name, data_dir), datasets.evaluation_split(name, data_dir)


def _resolved(validate, config, train_set, eval_set):
    del train_set, eval_set
    validate(configs.augmentation(config))
    return config


def _train_batches(batches, dataset, config, **settings):
    return batches(
        dataset,
        batch_size=config.batch_size,
        augmentation=configs.augmentation(config),
        seed=config.seed,
        num_threads=config.num_threads,
        **settings,
    )


def evaluator_of(
    scoring: Scoring,
    model: Model,
    dataset: Dataset,
    config: TrainConfig,
    devices: parallel.Devices | None = None,
) -> Callable[[PyTree], dict[str, Any]]:
    """Return the evaluator of a task whose outputs are compared with the truth by this scoring."""
    return evaluation.create_evaluator(
        model,
        dataset,
        configs.preprocessing(config),
        batch_size=config.batch_size,
        dtype=config.dtype,
        num_threads=config.num_threads,
        devices=devices,
        scoring=scoring,
        views=config.eval_views,
        loop_blocks=config.remat_deep,
    )


# The options of an image that is cropped and resized, and of the adversary that may change it
IMAGES = (
    *("channels", "interpolation", "start_image_size", "eval_image_size", "eval_resize"),
    *("eval_views", "crop", "vertical_flip", "color_jitter", "whiten", "adversary", "loss"),
)


def _classification_weight(batch, class_weights):
    if class_weights is None:
        return None
    mixed = {name: batch.get(name) for name in ("mixed_label", "mix")}
    return classification.target_weights(batch["label"], class_weights, **mixed).sum()


@losses.replaceable(AUXILIARY_WEIGHT)
def _classification_loss(logits, auxiliary, batch, config, axis_name, class_weights, total):
    del axis_name  # every device has as many examples

    def mean_loss(logits):
        losses = classification.cross_entropy(
            logits,
            batch["label"],
            mixed_label=batch.get("mixed_label"),
            mix=batch.get("mix"),
            smoothing=config.label_smoothing,
            class_weights=class_weights,
        )
        if total is None:
            return losses.mean()
        return losses.sum() / jnp.where(total > 0, total, 1).astype(losses.dtype)

    loss = mean_loss(logits)
    for each in auxiliary.values():
        loss += AUXILIARY_WEIGHT * mean_loss(each)
    accuracy = classification.in_top(logits, batch["label"], 1).mean()
    return loss, {"loss": loss, "accuracy": accuracy}


def _classification_odds(logits, batch):
    odds = classification.log_odds_against(logits, batch["label"])
    if "mix" in batch:
        mixed = classification.log_odds_against(logits, batch["mixed_label"])
        odds = batch["mix"] * odds + (1 - batch["mix"]) * mixed
    return odds.sum()


CLASSIFICATION = Task(
    name="classification",
    reads=(
        *IMAGES,
        *("sampler", "alternating_flip", "policy", "erasing", "mixup", "cutmix"),
        *("class_weights", "label_smoothing"),
    ),
    load=datasets.load,
    splits=_usual_splits,
    resolve=partial(_resolved, augmentation.validate),
    train_batches=partial(_train_batches, pipeline.train_batches),
    evaluation_batches=pipeline.evaluation_batches,
    class_counts=datasets.class_counts,
    total_weight=_classification_weight,
    objective=of_outputs(_classification_loss, _classification_odds),
    evaluator=partial(evaluator_of, evaluation.CLASSIFICATION),
    logged=("loss", "top1_error", "top5_error"),
    headline=lambda metrics: (
        f"accuracy {1 - metrics['top1_error']:.2%}, loss {metrics['loss']:.4f}"
    ),
)


def _without_trades(config, train_set, eval_set):
    if config.adversary == "trades":
        raise UsageError("--adversary=trades compares classifications; take --adversary=pgd")
    return _resolved(masked.validate, config, train_set, eval_set)


@losses.replaceable(segmentation.AUXILIARY_WEIGHT)
def _segmentation_loss(logits, auxiliary, batch, config, axis_name, class_weights, total):
    mask, heads = batch["mask"], tuple(auxiliary.values())
    loss = segmentation.loss(
        logits, heads, mask, axis_name, config.dice_weight, class_weights, total
    )
    counted = mask != segmentation.IGNORED
    right = ((logits.argmax(axis=-1) == mask) & counted).sum()
    return loss, {"loss": loss, "accuracy": right / counted.sum().clip(1)}


def segmentation_odds(logits: Array, batch: Batch) -> Array:
    """Return what an adversary climbs: the log odds against the truth, summed over the pixels."""
    odds = classification.log_odds_against(logits, batch["mask"])
    return jnp.where(batch["mask"] != segmentation.IGNORED, odds, 0).sum()


SEGMENTATION = Task(
    name="segmentation",
    reads=(*IMAGES, "mask_values", "class_weights", "dice_weight"),
    load=masks.load,
    splits=masks.splits,
    resolve=_without_trades,
    train_batches=partial(_train_batches, masked.train_batches),
    evaluation_batches=masked.evaluation_batches,
    class_counts=masked.class_counts,
    total_weight=lambda batch, class_weights: segmentation.total_weight(
        batch["mask"], class_weights
    ),
    objective=of_outputs(_segmentation_loss, segmentation_odds),
    evaluator=partial(
        evaluator_of,
        Scoring(
            "segmentation",
            masked.evaluation_batches,
            lambda logits, batch: segmentation.metric_sums(logits, batch["mask"], batch["weight"]),
            segmentation.summarize,
            ("one", "mirror", "mirrors"),
        ),
    ),
    logged=("loss", "mean_iou", "pixel_accuracy"),
    headline=lambda metrics: (
        f"mean IoU {metrics['mean_iou']:.4f}, pixel accuracy {metrics['pixel_accuracy']:.2%}"
    ),
)


@losses.replaceable()
def _localization_loss(outputs, auxiliary, batch, config, axis_name, class_weights, total):
    del auxiliary, config, axis_name, class_weights, total  # every device has as many examples
    label = batch["label"]
    entropy, distance = localization.loss(outputs, label, batch["boxes"])
    loss = entropy.mean() + localization.BOX_WEIGHT * distance.mean()
    accuracy = classification.in_top(outputs["logits"], label, 1).mean()
    return loss, {"loss": loss, "accuracy": accuracy}


def localization_odds(outputs: Mapping[str, Array], batch: Batch) -> Array:
    """Return what an adversary climbs: the log odds against the class, and the boxes' distance."""
    _, distance = localization.loss(outputs, batch["label"], batch["boxes"])
    odds = classification.log_odds_against(outputs["logits"], batch["label"])
    return (odds + localization.BOX_WEIGHT * distance).sum()


LOCALIZATION = Task(
    name="localization",
    reads=(*IMAGES, "sampler"),
    load=boxed.load,
    splits=_usual_splits,
    resolve=_without_trades,
    train_batches=partial(_train_batches, boxed.train_batches),
    evaluation_batches=boxed.evaluation_batches,
    class_counts=datasets.class_counts,
    objective=of_outputs(_localization_loss, localization_odds),
    evaluator=partial(
        evaluator_of,
        Scoring(
            "localization",
            boxed.evaluation_batches,
            lambda outputs, batch: localization.metric_sums(
                outputs, batch["label"], batch["boxes"], batch["weight"]
            ),
            localization.summarize,
            ("one",),
        ),
    ),
    logged=("loss", "top1_error", "top5_error", "top1_localization_error"),
    headline=lambda metrics: (
        f"localisation error top-1 {metrics['top1_localization_error']:.2%}, "
        f"top-5 {metrics['top5_localization_error']:.2%}; class error {metrics['top1_error']:.2%}"
    ),
)


def _detection_batches(
    dataset, config, *, image_size, balanced_by=None, proposals=None, max_proposals=0, **settings
):
    del balanced_by  # no option of detectors
    return objects.train_batches(
        dataset,
        batch_size=config.batch_size,
        canvas=image_size,
        max_objects=config.max_objects,
        flips=config.flip,
        seed=config.seed,
        proposals=proposals,
        max_proposals=max_proposals,
        num_threads=config.num_threads,
        **settings,
    )


def _detection_resolved(config, train_set, eval_set, proposed=False):
    settings = detector.settings_of(config)
    if proposed == bool(settings.anchor_sizes):
        kind = "needs proposals of regions" if not proposed else "proposes regions itself"
        raise UsageError(f"{config.model} {kind}; take another --model, or compare_detectors")
    if settings.mask_layers:
        objects.check_masks(train_set)
        objects.check_masks(eval_set)
    elif (config.keep_best or "").startswith("mask"):
        raise UsageError(f"{config.model} finds no masks; take --keep_best=box_map")
    room = objects.room_for(train_set, config.max_objects)
    return dataclasses.replace(config, max_objects=room)


DETECTION = Task(
    name="detection",
    reads=("max_objects",),
    load=objects.load,
    splits=_usual_splits,
    resolve=_detection_resolved,
    train_batches=_detection_batches,
    evaluation_batches=objects.evaluation_batches,
    objective=detector.objective,
    evaluator=detection_evaluation.evaluator,
    logged=detection_evaluation.LOGGED,
    headline=detection_evaluation.headline,
    first_class=1,  # 0 is the background, with which no object is labelled
    first_key=jax.random.key,
)


def given_proposals(proposals: Sequence[Float[np.ndarray, "_p 4"]], max_proposals: int) -> Task:
    """Return the row of detectors whose regions come with the training images.

    They are not evaluated: the evaluation split has no proposals here.

    Args:
      proposals: of each training image, of which max_proposals at most are taken.
    """
    return DETECTION._replace(
        resolve=partial(_detection_resolved, proposed=True),
        train_batches=partial(_detection_batches, proposals=proposals, max_proposals=max_proposals),
        evaluator=unmeasured,
    )


def unmeasured(*args: Any) -> Callable[[PyTree], dict[str, Any]]:
    """An evaluator that measures nothing, of runs whose networks are measured elsewhere."""
    del args
    return lambda variables: {}


TASKS = {task.name: task for task in (CLASSIFICATION, LOCALIZATION, SEGMENTATION, DETECTION)}


def register_task(task: Task, better: Mapping[str, str] | None = None) -> None:
    """Let experiments.train and evaluate know a task, of models whose Entry.task is its name.

    Most of a row is that of a like one, as in CLASSIFICATION._replace(name=..., objective=...); see
    training.objective.of_outputs and evaluator_of for its two functions.

    Args:
      better: for each of task.logged that no other task logs whether its highest ("max") or lowest
        ("min") value is the best.

    Raises:
      UsageError: the name is taken, this is no row of the table, it reads an option that there is
        not, or logs a number of which nobody says which end is better.
    """
    if not isinstance(task, Task):
        raise UsageError(f"{task!r} is no training.task.Task")
    options = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in task.reads:
        if name not in options:
            raise errors.unknown("option", name, options)
    better = {name: end for name, end in (better or {}).items() if name not in configs.BETTER}
    for name in task.logged:
        if better.get(name, configs.BETTER.get(name)) not in ("min", "max"):
            raise UsageError(
                f"the task {task.name!r} logs {name}, and not whether more of it is better; give "
                f'better={{"{name}": "max"}}, or "min"'
            )
    plugins.register(TASKS, "task", task.name, task)
    configs.BETTER.update(better)


def of_model(name: str) -> Task:
    """Return the registered task that the named model is for; of this package's CLASSIFICATION."""
    task = find(name).task
    return TASKS[task] if task in plugins.REGISTERED.get("task", ()) else CLASSIFICATION
