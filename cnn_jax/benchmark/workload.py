"""What both sides of the tasks that break a network or look into it are given.

JAX's side makes the network and the images, and leaves them in a file for the other side. The names
of the settings are those of our arguments.
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

# Madry et al. 2018, for CIFAR-10, at half of the steps that an evaluation takes.
PGD = {"eps": 8 / 255, "step_size": 2 / 255, "steps": 10}

# Moosavi-Dezfooli et al. 2016, of the l2 norm; 10 classes are considered.
DEEPFOOL = {"steps": 50, "overshoot": 0.02, "candidates": 10}

# Croce & Hein 2020, the standard ensemble in l-infinity.
AUTOATTACK = {"eps": 8 / 255, "steps": 100, "queries": 5000}

# Moosavi-Dezfooli et al. 2017, with DeepFool of 10 steps inside.
UNIVERSAL = {"eps": 10 / 255, "goal": 0.8, "epochs": 10, "steps": 10}

# Windows along each axis: 14 x 14 = 196 black squares that do not overlap.
OCCLUSION_WINDOWS = 14

# Sundararajan et al. 2017, by the Gauss-Legendre rule from black.
INTEGRATED_GRADIENTS = {"steps": 50}

# One octave of DeepDream, of the last layer with rows and columns.
DREAM = {"iterations": 10, "step_size": 1.5 / 255, "jitter": 32}

# Simonyan et al. 2014: from zeros, for the first class.
ASCENT = {"steps": 16, "l2_weight": 0.01, "learning_rate": 0.1}


def within(spec: Spec, settings: dict[str, Any]) -> dict[str, Any]:
    """Return an attack's settings with the budget of the Spec, if it has one."""
    return settings if spec.eps is None else settings | {"eps": spec.eps}


class Workload(NamedTuple):
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


def create(spec: Spec) -> tuple[Trained, Workload]:
    """Return the run's network with examples of its data, or a random one with random images."""
    if spec.run is None:
        network, images = _random(spec)
    else:
        network = trained.from_workdir(spec.run)
        images = _examples(network, spec.batch_size)
    pixels = images.astype(np.float32) / 255
    workload = Workload(
        jax.tree.map(np.asarray, network.variables),
        network.model.num_classes,
        np.array(network.mean, np.float32),
        np.array(network.std, np.float32),
        pixels,
        loop.predictions(trained.classifier(network), pixels).astype(np.int32),
    )
    if spec.workload is not None:
        _write(spec.workload, workload)
    return network, workload


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


def _write(path: str, workload: Workload) -> None:
    np.savez(path, **flatten_dict(workload._asdict(), sep="/"))


def read(path: str) -> Workload:
    """Return what JAX's side left."""
    with np.load(path) as file:
        arrays = unflatten_dict(dict(file), sep="/")
    return Workload(**arrays | {"num_classes": int(arrays["num_classes"])})


def facts(workload: Workload) -> dict[str, Any]:
    """Return what is reported of it."""
    return {"parameters": sum(x.size for x in jax.tree.leaves(workload.variables["params"]))}
