"""What training and evaluation do for one kind of network, as a row of functions."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cnn_jax.data import augmentation, datasets, masks, pipeline
from cnn_jax.data import localization as boxed
from cnn_jax.data import segmentation as masked
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.datasets import Dataset
from cnn_jax.tasks import classification, localization, segmentation
from cnn_jax.training import losses
from cnn_jax.views import VIEWS

Batch = Mapping[str, Array]
Metrics = Mapping[str, Array]
ClassWeights = Array | np.ndarray | None
Auxiliary = Mapping[str, Array]  # the outputs of the auxiliary heads, by path

# Szegedy et al. 2015, section 5: the auxiliary classifiers' share of the loss
AUXILIARY_WEIGHT = 0.3


class Task(NamedTuple):
    """A kind of network, from its data to its metrics.

    name: as in the registry.
    unused: options of the configuration that do nothing here, and are refused.
    validate(augmentation) raises UsageError for options that its images cannot take.
    load(name, split, data_dir) -> Dataset, that of masks takes mask_values too.
    splits(name, data_dir) -> (to train on, to evaluate on).
    train_batches, evaluation_batches: of a data set, with the arguments of those of data.pipeline.
    class_counts(dataset) -> int [classes]: how often each class is there to be learnt.
    total_weight(batch, class_weights) -> what the loss divides its sum by, or None: the examples.
    loss(outputs, auxiliary, batch, config, axis_name, class_weights, total) -> (scalar, metrics):
      of the network's outputs and those of its auxiliary heads; metrics hold "loss" and "accuracy".
      class_weights are float [classes] or None; total is the batch's share of total_weight.
    adversary_loss(outputs, batch) -> what an adversary climbs, summed over the batch: the log odds
      against the truth, for the cross-entropy's gradient vanishes where the network is sure.
    metric_sums(outputs, batch) -> sums over the examples of weight 1, to be added up.
    summarize(sums, class_names) -> metrics of a whole split.
    logged: the metrics of an evaluation that go into the log.  headline: metrics -> a line of them.
    views: names in views.VIEWS, of what an evaluation may average over.
    """

    name: str
    unused: tuple[str, ...]
    validate: Callable[[Augmentation], None]
    load: Callable[[str, str, str | None], Dataset]
    splits: Callable[[str, str | None], tuple[str, str]]
    train_batches: Callable[..., Iterator[Batch]]
    evaluation_batches: Callable[..., Iterator[Batch]]
    class_counts: Callable[[Dataset], np.ndarray]
    total_weight: Callable[[Batch, ClassWeights], Array | None]
    loss: Callable[..., tuple[Array, Metrics]]
    adversary_loss: Callable[[Any, Batch], Array]
    metric_sums: Callable[[Any, Batch], Metrics]
    summarize: Callable[[Mapping[str, Any], tuple[str, ...]], dict[str, Any]]
    logged: tuple[str, ...]
    headline: Callable[[Mapping[str, Any]], str]
    views: tuple[str, ...]


def _usual_splits(name, data_dir):
    return datasets.training_split(name, data_dir), datasets.evaluation_split(name, data_dir)


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
    unused=("dice_weight", "mask_values"),
    validate=augmentation.validate,
    load=datasets.load,
    splits=_usual_splits,
    train_batches=pipeline.train_batches,
    evaluation_batches=pipeline.evaluation_batches,
    class_counts=datasets.class_counts,
    total_weight=_classification_weight,
    loss=_classification_loss,
    adversary_loss=_classification_odds,
    metric_sums=lambda logits, batch: classification.metric_sums(
        logits, batch["label"], batch["weight"]
    ),
    summarize=classification.summarize,
    logged=("loss", "top1_error", "top5_error"),
    headline=lambda metrics: (
        f"test accuracy {1 - metrics['top1_error']:.2%}, loss {metrics['loss']:.4f}"
    ),
    views=tuple(VIEWS),
)


@losses.replaceable(segmentation.AUXILIARY_WEIGHT)
def _segmentation_loss(logits, auxiliary, batch, config, axis_name, class_weights, total):
    mask, heads = batch["mask"], tuple(auxiliary.values())
    loss = segmentation.loss(
        logits, heads, mask, axis_name, config.dice_weight, class_weights, total
    )
    counted = mask != segmentation.IGNORED
    right = ((logits.argmax(axis=-1) == mask) & counted).sum()
    return loss, {"loss": loss, "accuracy": right / counted.sum().clip(1)}


def _segmentation_odds(logits, batch):
    odds = classification.log_odds_against(logits, batch["mask"])
    return jnp.where(batch["mask"] != segmentation.IGNORED, odds, 0).sum()


SEGMENTATION = Task(
    name="segmentation",
    unused=("label_smoothing", "sampler"),
    validate=masked.validate,
    load=masks.load,
    splits=masks.splits,
    train_batches=masked.train_batches,
    evaluation_batches=masked.evaluation_batches,
    class_counts=masked.class_counts,
    total_weight=lambda batch, class_weights: segmentation.total_weight(
        batch["mask"], class_weights
    ),
    loss=_segmentation_loss,
    adversary_loss=_segmentation_odds,
    metric_sums=lambda logits, batch: segmentation.metric_sums(
        logits, batch["mask"], batch["weight"]
    ),
    summarize=segmentation.summarize,
    logged=("loss", "mean_iou", "pixel_accuracy"),
    headline=lambda metrics: (
        f"mean IoU {metrics['mean_iou']:.4f}, pixel accuracy {metrics['pixel_accuracy']:.2%}"
    ),
    views=("one", "mirror", "mirrors"),
)


@losses.replaceable()
def _localization_loss(outputs, auxiliary, batch, config, axis_name, class_weights, total):
    del auxiliary, config, axis_name, class_weights, total  # every device has as many examples
    label = batch["label"]
    entropy, distance = localization.loss(outputs, label, batch["boxes"])
    loss = entropy.mean() + localization.BOX_WEIGHT * distance.mean()
    accuracy = classification.in_top(outputs["logits"], label, 1).mean()
    return loss, {"loss": loss, "accuracy": accuracy}


def _localization_odds(outputs, batch):
    _, distance = localization.loss(outputs, batch["label"], batch["boxes"])
    odds = classification.log_odds_against(outputs["logits"], batch["label"])
    return (odds + localization.BOX_WEIGHT * distance).sum()


LOCALIZATION = Task(
    name="localization",
    unused=("label_smoothing", "dice_weight", "class_weights", "mask_values"),
    validate=masked.validate,
    load=boxed.load,
    splits=_usual_splits,
    train_batches=boxed.train_batches,
    evaluation_batches=boxed.evaluation_batches,
    class_counts=datasets.class_counts,
    total_weight=lambda batch, class_weights: None,
    loss=_localization_loss,
    adversary_loss=_localization_odds,
    metric_sums=lambda outputs, batch: localization.metric_sums(
        outputs, batch["label"], batch["boxes"], batch["weight"]
    ),
    summarize=localization.summarize,
    logged=("loss", "top1_error", "top5_error", "top1_localization_error"),
    headline=lambda metrics: (
        f"localisation error top-1 {metrics['top1_localization_error']:.2%}, "
        f"top-5 {metrics['top5_localization_error']:.2%}; class error {metrics['top1_error']:.2%}"
    ),
    views=("one",),
)
