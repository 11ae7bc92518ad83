"""The network and the images of the tasks that break a network or look into it.

JAX's side makes them, and leaves them in a file for the other side, so that both have the same.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Int

from cnn_jax import trained
from cnn_jax.attacks import loop
from cnn_jax.benchmark import inputs
from cnn_jax.benchmark.spec import Spec
from cnn_jax.data import datasets, pipeline
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.models import create_model
from cnn_jax.trained import Trained
from cnn_jax.training import loop as training
from cnn_jax.training.config import TrainConfig, literal_options


class Subject(NamedTuple):
    """What both sides are given.

    variables: NumPy arrays, nested by path.
    mean, std: of the channels, in 0..1 units.
    pixels: in 0..1.
    classes: the network's own of these images.
    """

    variables: Mapping[str, Any]
    num_classes: int
    mean: Float[np.ndarray, " c"]
    std: Float[np.ndarray, " c"]
    pixels: Float[np.ndarray, "n h w c"]
    classes: Int[np.ndarray, " n"]


def create(spec: Spec) -> tuple[Trained, Subject]:
    """Return the run's network with examples of its data, or a random one with random images."""
    if spec.run is None:
        network, images = _random(spec)
    else:
        network = trained.from_workdir(spec.run)
        images = _examples(network, spec.batch_size)
    pixels = images.astype(np.float32) / 255
    subject = Subject(
        jax.tree.map(np.asarray, network.variables),
        network.model.num_classes,
        np.array(network.mean, np.float32),
        np.array(network.std, np.float32),
        pixels,
        loop.predictions(trained.classifier(network), pixels).astype(np.int32),
    )
    if spec.subject is not None:
        _write(spec.subject, subject)
    return network, subject


def _random(spec: Spec) -> tuple[Trained, np.ndarray]:
    options = {"model_options": spec.model_options, "image_size": spec.image_size}
    model = create_model(spec.model, **literal_options(spec.model_options))
    variables = training.initial_variables(
        TrainConfig(model=spec.model, **options), model, model.channels
    )
    mean, std = (inputs.MEAN,) * model.channels, (inputs.STD,) * model.channels
    size = Preprocessing(spec.image_size)
    network = Trained(model, variables, size, mean, std, (), {}, None)
    return network, inputs.synthetic_batch(spec, model.channels, model.num_classes)["image"]


def _examples(network: Trained, count: int) -> np.ndarray:
    """Return the first images of the split that the run is evaluated on, uint8."""
    config = network.config
    split = config.eval_split or datasets.evaluation_split(config.dataset, config.data_dir)
    dataset = datasets.load(config.dataset, split, config.data_dir)
    dataset = datasets.read_as(dataset, len(network.mean))
    batches = pipeline.evaluation_batches(
        dataset,
        batch_size=min(count, len(dataset.source)),
        preprocessing=network.preprocessing,
    )
    return next(batches)["image"]


def _write(path: str, subject: Subject) -> None:
    np.savez(path, **flatten_dict(subject._asdict(), sep="/"))


def read(path: str) -> Subject:
    """Return what JAX's side left."""
    with np.load(path) as file:
        arrays = unflatten_dict(dict(file), sep="/")
    return Subject(**arrays | {"num_classes": int(arrays["num_classes"])})


def facts(subject: Subject) -> dict[str, Any]:
    """Return what is reported of it."""
    return {"parameters": sum(x.size for x in jax.tree.leaves(subject.variables["params"]))}
