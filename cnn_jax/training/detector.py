"""Training a two-stage detector: the step as one program, and the loop around it, resumable."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from cnn_jax import trackers
from cnn_jax.data import classes
from cnn_jax.data import detection as data
from cnn_jax.data.datasets import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.models.fast_rcnn import fast_rcnn
from cnn_jax.models.faster_rcnn import Detections, Proposals, Settings, faster_rcnn
from cnn_jax.models.registry import find
from cnn_jax.runtime import parallel
from cnn_jax.tasks import detection
from cnn_jax.training import checkpoint, extension
from cnn_jax.training import config as configs
from cnn_jax.training.checkpoint import checkpoint_directory
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.initial import initial_variables
from cnn_jax.training.log import open_log, read_log
from cnn_jax.training.loop import Diverged
from cnn_jax.training.optimizer import create_optimizer, learning_rate_schedule
from cnn_jax.training.paths import freezing
from cnn_jax.training.state import TrainState, create_state
from cnn_jax.training.step import normalize_images

Batch = Mapping[str, Array]

# what of a batch a detector is given; the rest is what it should find
DETECTED_FROM = ("image", "size", "proposals", "proposed")


# Options that do nothing to a detector, whose canvas holds the whole image.
UNUSED = (
    *("num_threads", "mask_values", "interpolation", "start_image_size", "image_size_stages"),
    *("eval_image_size", "eval_resize", "eval_views", "eval_every"),
    *("crop", "vertical_flip", "alternating_flip", "policy", "color_jitter"),
    *("erasing", "mixup", "cutmix", "label_smoothing", "dice_weight", "accumulate"),
    *("sampler", "class_weights", "keep_best", "loss"),
    *("ema_decay", "whiten", "adversary", "parallel"),
)


def settings_of(config: TrainConfig) -> Settings:
    """Return the settings of the detector that the configuration names."""
    return find(config.model).function.keywords["settings"]


def canvas_images(batch: Batch, dataset: Dataset, dtype: str = "float32") -> Array:
    """Return the normalised images, zeros beside them as torchvision has it."""
    images = normalize_images(batch["image"], dataset.mean, dataset.std, jnp.dtype(dtype))
    height, width = (batch["size"][:, i, None, None, None] for i in (0, 1))
    rows = jnp.arange(images.shape[1])[:, None, None]
    columns = jnp.arange(images.shape[2])[:, None]
    return jnp.where((rows < height) & (columns < width), images, 0)


def truth_of(batch: Batch, with_masks: bool) -> detection.Truth:
    """Return a batch's objects, without the difficult ones."""
    valid, masks = batch["valid"] & ~batch["difficult"], None
    if with_masks:
        bits = jnp.unpackbits(batch["instances"], axis=-1, count=valid.shape[1], bitorder="little")
        masks = jnp.moveaxis(bits, -1, 1).astype(bool)
    return detection.Truth(batch["boxes"], batch["labels"], valid, masks)


def proposals_of(batch: Batch) -> Proposals | None:
    """Return the regions that came with a batch's images."""
    if "proposals" not in batch:
        return None
    return Proposals(batch["proposals"], batch["proposed"])


def create_train_step(
    config: TrainConfig,
    settings: Settings,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Return step(state, batch) -> (state, metrics) for a batch of data.detection.

    The metrics are "loss", each of its terms, gradient_norm (before clipping) and learning_rate.
    Samples are drawn by the seed and the step.
    """
    schedule, base_key = learning_rate_schedule(config), jax.random.key(config.seed)
    flags = {"train": True, "remat": config.remat, "stays": freezing(config.freeze)}

    def loss_of(params, batch_stats, batch, key):
        terms, updates = flax.core.apply(detection.losses, mutable=["batch_stats"], flags=flags)(
            {"params": params, "batch_stats": batch_stats},
            canvas_images(batch, dataset, config.dtype),
            truth_of(batch, settings.mask_layers > 0),
            key,
            num_classes=config.num_classes,
            settings=settings,
            sizes=batch["size"],
            given=proposals_of(batch),
            rngs={"dropout": key},
        )
        loss = sum(terms.values())
        stats = flax.core.unfreeze(updates).get("batch_stats", {})
        return loss, (stats, {"loss": loss} | terms)

    def step(state, batch):
        key = jax.random.fold_in(base_key, state.step)
        gradients, (batch_stats, metrics) = jax.grad(loss_of, has_aux=True)(
            state.params, state.batch_stats, batch, key
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics |= {
            "gradient_norm": optax.global_norm(gradients),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state, state.ema), metrics

    return step


def create_detector(
    settings: Settings, num_classes: int, dataset: Dataset
) -> Callable[[PyTree, Batch], Detections]:
    """Return detect(variables, batch) -> Detections, one program for each canvas.

    The detector proposes regions itself, unless they come with the batch.
    """

    @jax.jit
    def detect(variables: PyTree, batch: Batch) -> Detections:
        given = proposals_of(batch)
        function = faster_rcnn if given is None else partial(fast_rcnn, proposals=given)
        return flax.core.apply(function)(
            variables,
            canvas_images(batch, dataset),
            num_classes,
            sizes=batch["size"],
            settings=settings,
        )

    return detect


def detect_all(
    detect: Callable[[PyTree, Batch], Detections], variables: PyTree, batches: Iterable[Batch]
) -> Iterator[tuple[Batch, Detections]]:
    """Yield each example with its detections, on the host and without a batch axis."""
    for batch in batches:
        given = {name: batch[name] for name in DETECTED_FROM if name in batch}
        found = jax.tree.map(np.asarray, detect(variables, given))
        for i in np.flatnonzero(batch["weight"]):
            yield (
                {name: x[i] for name, x in batch.items()},
                jax.tree.map(lambda x, i=i: x[i], found),
            )


class Result(NamedTuple):
    """What a run came to: the final step, its last logged losses and pace, and the variables."""

    step: int
    losses: dict[str, float]
    images_per_second: float | None
    variables: PyTree


def in_numbers_of_run(
    workdir: str | os.PathLike, train_set: Dataset, eval_set: Dataset
) -> tuple[Dataset, Dataset]:
    """Return both splits with their labels in the numbers of the run's network, if there is one.

    Raises:
      UsageError: the training split's classes are not the run's, or the evaluation split has others
        than the training split.
    """
    known = (checkpoint.newest_config(checkpoint_directory(workdir)) or {}).get("class_names", ())
    owner = f"the run in {workdir}"
    train_set = classes.matched(train_set, known, owner, whole=True, first=1)
    names, owner = train_set.class_names, f"its split {train_set.split}"
    return train_set, classes.matched(eval_set, names, owner, first=1)


def train(
    config: TrainConfig,
    workdir: str | os.PathLike,
    dataset: Dataset,
    *,
    max_objects: int,
    proposals: Sequence[Float[np.ndarray, "_p 4"]] | None = None,
    max_proposals: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Train as a resolved configuration says, from workdir's newest checkpoint if there is one.

    Args:
      proposals: regions of each image, of detectors that propose none; see data.detection.

    Raises:
      UsageError: what does not fit together.
      Diverged: a loss is NaN or infinite.
    """
    devices = len(jax.devices())
    parallel.check_batch_size(config.batch_size, devices)
    model, settings = configs.build_model(config), settings_of(config)
    if (proposals is None) != bool(settings.anchor_sizes):
        kind = "proposes regions itself" if settings.anchor_sizes else "needs proposals of regions"
        raise UsageError(f"{config.model} {kind}; take another --model, or compare_detectors")
    before = checkpoint.newest_config(checkpoint_directory(workdir))
    dataset, _ = in_numbers_of_run(workdir, dataset, dataset)
    variables = initial_variables(
        dataclasses.replace(config, init_from=None) if before else config,  # goes on from its own
        model,
        3,
        jax.random.key(config.seed),
        class_names=dataset.class_names,
        say=say,
    )
    optimizer = create_optimizer(config, variables["params"])
    over = parallel.over_mesh()
    step_function = over.compile(create_train_step(config, settings, optimizer, dataset))
    state = jax.tree.map(np.asarray, create_state(model, optimizer, variables, ema=False))
    manager = checkpoint.open_checkpoints(checkpoint_directory(workdir), keep=config.keep, warn=say)
    saved = dataclasses.asdict(config) | {
        "mean": dataset.mean,
        "std": dataset.std,
        "class_names": dataset.class_names,
    }
    try:
        restored = checkpoint.restore(manager, state, warn=say)
        state, start = restored or (state, 0)
        if line := extension.consequence(config, before or {}, start):
            say(line)
        state = over.put_state(state)
        batches = data.train_batches(
            dataset,
            batch_size=config.batch_size,
            canvas=config.image_size,
            max_objects=max_objects,
            flips=config.flip,
            seed=config.seed,
            proposals=proposals,
            max_proposals=max_proposals,
            start_step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        log = open_log(Path(workdir), start, trackers.open_tracker(config, Path(workdir), say))
        begun, rate, losses = time.perf_counter(), None, {}
        for step in range(start + 1, config.steps + 1):
            state, metrics = step_function(state, over.put_batch(next(batches)))
            if step == start + 1:  # compiled by now
                jax.block_until_ready(metrics)
                begun = time.perf_counter()
            if step % config.log_every == 0 or step == config.steps:
                losses = {name: float(value) for name, value in metrics.items()}
                if not all(map(math.isfinite, losses.values())):
                    raise Diverged(f"a loss is not finite at step {step}: {losses}")
                if step > start + 1:
                    made = (step - start - 1) * config.batch_size
                    rate = made / (time.perf_counter() - begun)
                log.write(step, losses | ({} if rate is None else {"images_per_second": rate}))
                say(f"step {step} of {config.steps}: loss {losses['loss']:.3f}")
            if step % config.checkpoint_every == 0 or step == config.steps:
                checkpoint.save(manager, step, over.get_state(state), config=saved)
        log.close()
        if start >= config.steps:  # all was done before
            losses = {
                name: x for name, x in (read_log(workdir) or [{}])[-1].items() if name != "step"
            }
            rate = losses.pop("images_per_second", None)
    finally:
        checkpoint.finish(manager)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return Result(config.steps, losses, rate, variables)
