"""What a two-stage detector is trained by, and what it is to use a trained one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from cnn_jax.data.datasets import Dataset
from cnn_jax.models import Model
from cnn_jax.models.fast_rcnn import fast_rcnn
from cnn_jax.models.faster_rcnn import Detections, Proposals, Settings, faster_rcnn
from cnn_jax.models.registry import find
from cnn_jax.runtime import parallel
from cnn_jax.tasks import detection
from cnn_jax.training.config import TrainConfig, rematerialization
from cnn_jax.training.objective import Metrics, Part, normalize_images
from cnn_jax.training.paths import freezing

Batch = Mapping[str, Array]

# what of a batch a detector is given; the rest is what it should find
DETECTED_FROM = ("image", "size", "proposals", "proposed")


def settings_of(config: TrainConfig) -> Settings:
    """Return the settings of the detector that the configuration names."""
    return find(config.model).function.keywords["settings"]


def canvas_images(
    batch: Batch, mean: Sequence[float], std: Sequence[float], dtype: str = "float32"
) -> Array:
    """Return the normalised images, zeros beside them as torchvision has it."""
    images = normalize_images(batch["image"], mean, std, jnp.dtype(dtype))
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


def objective(
    model: Model,
    variables: PyTree,
    batch: Batch,
    key: Array,
    config: TrainConfig,
    part: Part,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    class_weights: None = None,
) -> tuple[Array, tuple[PyTree, Metrics]]:
    """The objective (see training.objective) of a batch of data.detection: the sum of the losses.

    The metrics are "loss" and each of its terms. Samples are drawn by the seed and the step, the
    same ones on however many devices. Of a batch in accumulated parts each loss is the mean of the
    parts' losses, which are divided by as much as counts in their part.
    """
    del class_weights  # no option of detectors
    settings = settings_of(config)
    flags = {
        "train": True,
        "remat": rematerialization(config),
        "axis_name": part.axis_name,
        "norm_batch": config.norm_batch,
        "stays": freezing(config.freeze),
    }
    terms, updates = flax.core.apply(detection.losses, mutable=["batch_stats"], flags=flags)(
        variables,
        canvas_images(batch, mean, std, config.dtype),
        truth_of(batch, settings.mask_layers > 0),
        detection.Draw(part.batch_key, part.rows, part.examples),
        num_classes=model.num_classes,
        settings=settings,
        sizes=batch["size"],
        given=proposals_of(batch),
        axis_name=part.axis_name,
        rngs={"dropout": key},
    )
    loss = sum(terms.values())
    stats = flax.core.unfreeze(updates).get("batch_stats", {})
    return loss, (stats, {"loss": loss} | terms)


def create_detector(
    settings: Settings, num_classes: int, dataset: Dataset, mesh: Mesh | None = None
) -> Callable[[PyTree, Batch], Detections]:
    """Return detect(variables, batch) -> Detections, one program for each canvas.

    The detector proposes regions itself, unless they come with the batch.

    Args:
      dataset: whose mean and std images are normalised with.
      mesh: devices, of all hosts, that share each batch, which every host then gives whole; by
        default this host's first.
    """

    @partial(jax.jit, out_shardings=None if mesh is None else parallel.replicated(mesh))
    @partial(parallel.within, mesh)
    def program(variables: PyTree, batch: Batch) -> Detections:
        given = proposals_of(batch)
        function = faster_rcnn if given is None else partial(fast_rcnn, proposals=given)
        return flax.core.apply(function)(
            variables,
            canvas_images(batch, dataset.mean, dataset.std),
            num_classes,
            sizes=batch["size"],
            settings=settings,
        )

    def detect(variables: PyTree, batch: Batch) -> Detections:
        return program(variables, batch if mesh is None else parallel.spread(batch, mesh))

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
