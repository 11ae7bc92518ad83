"""Evaluating a network: every example of a split, once, on all devices."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from cnn_jax import errors
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.pipeline import evaluation_batches
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.models import Model
from cnn_jax.runtime import parallel
from cnn_jax.tasks import classification
from cnn_jax.test_time_augmentation import VIEWS
from cnn_jax.training.objective import normalize_images


class Scoring(NamedTuple):
    """How the outputs of a kind of network are compared with the truth, example by example.

    name: of the task.
    batches: with the arguments of data.pipeline.evaluation_batches.
    metric_sums(outputs, batch) -> sums over the examples of weight 1, to be added up.
    summarize(sums, class_names) -> metrics of a whole split.
    views: names in views.VIEWS, of what an evaluation may average over.
    """

    name: str
    batches: Callable[..., Iterator[Mapping[str, np.ndarray]]]
    metric_sums: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
    summarize: Callable[[Mapping[str, Any], tuple[str, ...]], dict[str, Any]]
    views: tuple[str, ...]


CLASSIFICATION = Scoring(
    "classification",
    evaluation_batches,
    lambda logits, batch: classification.metric_sums(logits, batch["label"], batch["weight"]),
    classification.summarize,
    tuple(VIEWS),
)


def create_eval_step(
    model: Model,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: str = "float32",
    scoring: Scoring = CLASSIFICATION,
    views: str = "one",
) -> Callable[[PyTree, Mapping[str, Any]], Mapping[str, Any]]:
    """Return step(variables, batch) -> the scoring's metric_sums of the batch.

    Images [b, 10, h, w, c] are crops of one example, to classify, whose probabilities are averaged
    (Krizhevsky et al. 2012, section 4.1).

    Args:
      views: a name in VIEWS: what is averaged of each image.
    """

    def step(variables, batch):
        images = normalize_images(batch["image"], mean, std, jnp.dtype(dtype))
        outputs_of = VIEWS[views](partial(model.apply, variables))
        if images.ndim == 4:
            outputs = jax.tree.map(lambda x: x.astype(jnp.float32), outputs_of(images))
        else:
            crops = outputs_of(images.reshape(-1, *images.shape[2:]))
            crops = jax.nn.log_softmax(crops.astype(jnp.float32))
            crops = crops.reshape(*images.shape[:2], -1)
            outputs = jax.nn.logsumexp(crops, axis=1) - jnp.log(images.shape[1])
        return scoring.metric_sums(outputs, batch)

    return step


def add_up(
    step: Callable, variables: PyTree, batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the sums of step(variables, batch) over the batches, in int64 and float64.

    Each is added up when the next one has been begun, so that the devices need not wait.
    """
    totals: dict[str, np.ndarray] = {}
    found = (step(variables, batch) for batch in batches)
    for sums, _ in pairwise(chain(found, [None])):
        for name, value in sums.items():
            value = np.asarray(value)
            wide = np.float64 if np.issubdtype(value.dtype, np.floating) else np.int64
            totals[name] = totals.get(name, 0) + value.astype(wide)
    return totals


def create_evaluator(
    model: Model,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 128,
    dtype: str = "float32",
    ten_crop: bool = False,
    num_threads: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    devices: parallel.Devices | None = None,
    scoring: Scoring = CLASSIFICATION,
    views: str = "one",
    loop_blocks: bool = False,
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
) -> Callable[[PyTree], dict[str, Any]]:
    """Return evaluate(variables) -> the scoring's summary of the whole split.

    The program is compiled once and serves every call. The batch is rounded up to what the devices
    share evenly; that never changes what is counted.

    Args:
      dataset: with its labels in the network's numbers, as trained.labelled gives it.
      mean, std: what images are normalised with, in 0..1 units; by default the data set's.
      devices: by default all of all hosts.
      scoring: how its outputs are compared with the truth.
      views: a name in VIEWS: what is averaged of each image.
      loop_blocks: run blocks that are alike as one loop, as training with --remat_deep does: a
        thousand layers compile in seconds instead of minutes, to the same results.
      progress: wraps the batches, whose number is given, for a progress bar.

    Raises:
      UsageError: views that the scoring does not have, or more classes than the network's.
    """
    if dataset.num_classes > model.num_classes:
        raise errors.UsageError(
            f"{dataset.name} has {dataset.num_classes} classes, {model.name} tells "
            f"{model.num_classes} apart; evaluate on what it was trained for"
        )
    if views not in scoring.views:
        raise errors.unknown(f"view for {scoring.name}", views, scoring.views)
    if loop_blocks:
        model = model._replace(apply=partial(model.apply, remat="deep"))
    mesh = parallel.data_mesh(devices)
    batch_size = -(-batch_size // mesh.size) * mesh.size
    step = jax.jit(
        create_eval_step(model, mean or dataset.mean, std or dataset.std, dtype, scoring, views),
        out_shardings=parallel.replicated(mesh),
    )

    def evaluate(variables: PyTree) -> dict[str, Any]:
        variables = parallel.put_replicated(variables, mesh)
        batches = scoring.batches(
            dataset,
            batch_size=batch_size,
            preprocessing=preprocessing,
            **({"ten_crop": True} if ten_crop else {}),
            num_threads=num_threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        count = -(-len(dataset.source) // batch_size)
        placed = (parallel.put_batch(batch, mesh) for batch in progress(batches, count))
        return scoring.summarize(add_up(step, variables, placed), dataset.class_names)

    return evaluate


def predict(
    model: Model,
    variables: PyTree,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 128,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[Float[np.ndarray, "n classes"], Int[np.ndarray, " n"]]:
    """Return every example's class probabilities and its label, in the data set's order.

    The label is the network's number where the data set is as trained.labelled gives it.

    On this host's first device; for pictures and small studies rather than for results.
    """
    mean, std = mean or dataset.mean, std or dataset.std

    @jax.jit
    def probabilities_of(variables, images):
        logits = model.apply(variables, normalize_images(images, mean, std))
        return jax.nn.softmax(logits.astype(jnp.float32))

    batches = evaluation_batches(dataset, batch_size=batch_size, preprocessing=preprocessing)
    probabilities, labels = [], []
    for batch in batches:
        real = batch["weight"] > 0
        probabilities.append(np.asarray(probabilities_of(variables, batch["image"]))[real])
        labels.append(batch["label"][real])
    return np.concatenate(probabilities), np.concatenate(labels)
