"""A network with its variables and all that using it takes, from a run or a weights file."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from cnn_jax import taps
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.models import Model, create_model
from cnn_jax.models.registry import MODELS, check_task
from cnn_jax.training import checkpoint
from cnn_jax.training import config as configs
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.loop import checkpoint_directory
from cnn_jax.weights import load_weights


class Trained(NamedTuple):
    """A trained network; a classifier, unless another task was asked for.

    model, variables: what model.apply takes.
    preprocessing: resize and crop before it.  mean, std: of the channels, in 0..1 units.
    class_names: of the classes it was trained on; () where the file does not tell.
    source: where it comes from, its step and the SHA-256 of its parameters and batch statistics.
    config: the training options; None for a weights file.
    """

    model: Model
    variables: PyTree
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    source: Mapping[str, Any]
    config: TrainConfig | None


def from_workdir(
    workdir: str | os.PathLike, step: int | None = None, task: str = "classification"
) -> Trained:
    """Return the network of a run's newest intact checkpoint, or of the given step.

    The averaged weights are taken where the run kept some.

    Raises:
      UsageError: no run there, no such step, no intact checkpoint, or a network for another task.
    """
    if not Path(workdir).is_dir():
        raise UsageError(f"there is no folder {workdir}; give the --workdir of a training run")
    found = checkpoint.load(checkpoint_directory(workdir), step)
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = configs.from_dict({name: found.config[name] for name in fields & found.config.keys()})
    check_task(config.model, task)
    state = found.state
    variables = state["ema"] or {name: state[name] for name in ("params", "batch_stats")}
    source = {"workdir": os.fspath(workdir), "step": found.step, "averaged": bool(state["ema"])}
    return Trained(
        configs.build_model(config),
        variables,
        configs.preprocessing(config),
        tuple(found.config["mean"]),
        tuple(found.config["std"]),
        tuple(found.config["class_names"]),
        source | {"parameters_sha256": checkpoint.parameters_sha256(variables)},
        config,
    )


def from_weights(
    name: str,
    path: str | os.PathLike,
    num_classes: int | None = None,
    task: str = "classification",
) -> Trained:
    """Return the named model with the weights of a published file, and their preprocessing.

    Raises:
      UsageError: an unknown model, one for another task, or a file that is not this model's.
    """
    check_task(name, task)
    entry = MODELS[name]
    variables = load_weights(name, path, num_classes, replace_head=False)
    source = {"weights": os.fspath(path)}
    return Trained(
        create_model(name, num_classes),
        variables,
        Preprocessing(entry.image_size, entry.resize, entry.interpolation),
        entry.mean,
        entry.std,
        (),
        source | {"parameters_sha256": checkpoint.parameters_sha256(variables)},
        None,
    )


def classifier(
    network: Trained, **options: Any
) -> Callable[[Float[Array, "n h w c"]], Float[Array, "n classes"]]:
    """Return f(pixels) -> logits, which normalises as the network was trained.

    What pictures and attacks take: pixels are floats in 0..1, and their dtype is computed in. It is
    a Partial over the variables, so that as an argument of jitted functions its arrays are traced.

    Args:
      options: of model.apply, e.g. relu_rule="guided"; more may be given on a call, e.g. tap=...
    """

    def logits(variables: PyTree, pixels: Float[Array, "n h w c"], **more: Any):
        return network.model.apply(variables, _normalize(network, pixels), **options, **more)

    return Partial(logits, network.variables)


def layer(
    network: Trained, path: str, **options: Any
) -> Callable[[Float[Array, "n h w c"]], Float[Array, "n ..."]]:
    """Return f(pixels) -> activation of the layer at this path, see `classifier`.

    Raises:
      UsageError: on a call, a path that no layer has; the message names the near ones.
    """

    def activation(variables: PyTree, pixels: Float[Array, "n h w c"]) -> Float[Array, "n ..."]:
        images = _normalize(network, pixels)
        _, seen = taps.activations(network.model.apply, variables, images, [path], **options)
        return seen[path]

    return Partial(activation, network.variables)


def layers(
    network: Trained, paths: Iterable[str], **options: Any
) -> Callable[[Float[Array, "n h w c"]], dict[str, Float[Array, "n ..."]]]:
    """Return f(pixels) -> activations of the layers at these paths, see `classifier`.

    Nothing behind them is traced: images of any size will do where these layers take them.

    Raises:
      UsageError: on a call, a path that no layer has; the message names the near ones.
    """
    paths = tuple(paths)

    def activations(variables: PyTree, pixels: Float[Array, "n h w c"]) -> dict[str, Array]:
        images = _normalize(network, pixels)
        return taps.activations_alone(network.model.apply, variables, images, paths, **options)

    return Partial(activations, network.variables)


def _normalize(network: Trained, pixels: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    mean, std = (jnp.asarray(each, pixels.dtype) for each in (network.mean, network.std))
    return (pixels - mean) / std
