"""A network with its variables and all that using it takes, from a run or a weights file."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from cnn_jax import taps
from cnn_jax.data import class_names as named_classes
from cnn_jax.data import classes
from cnn_jax.data.datasets import Dataset
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.models import Model, create_model
from cnn_jax.models.registry import check_task, find
from cnn_jax.training import checkpoint
from cnn_jax.training import config as configs
from cnn_jax.training.checkpoint import checkpoint_directory
from cnn_jax.training.config import TrainConfig
from cnn_jax.weights import load_weights, pretrained


class Trained(NamedTuple):
    """A trained network; a classifier, unless another task was asked for.

    model, variables: what model.apply takes.
    preprocessing: resize and crop before it.  mean, std: of the channels, in 0..1 units.
    class_names: of the classes it was trained on, in the order of its outputs; () where nobody
      tells, and fewer than its outputs where it was given more.
    source: where it comes from, its step and the SHA-256 of its parameters and batch statistics.
    config: the training options; None for a weights file.
    other_names: each the same classes in the same order under other names, by which a data set may
      call them too (as ImageNet's WordNet numbers).
    """

    model: Model
    variables: PyTree
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    source: Mapping[str, Any]
    config: TrainConfig | None
    other_names: tuple[tuple[str, ...], ...] = ()


def from_workdir(
    workdir: str | os.PathLike,
    step: int | Literal["best"] | None = None,
    task: str | None = "classification",
    averaged: bool = True,
) -> Trained:
    """Return the network of a run's newest intact checkpoint, or of the given step.

    Args:
      step: a number; "best" for the best checkpoint of a run that keeps it (keep_best).
      task: what the network must be for; None: for whatever.
      averaged: take the moving average of the weights where the run keeps one; else, and with
        False, the weights as the last update left them.

    Raises:
      UsageError: no run there, no such step, no intact checkpoint, or a network for another task.
    """
    if not Path(workdir).is_dir():
        raise UsageError(f"there is no folder {workdir}; give the --workdir of a training run")
    directory = checkpoint_directory(workdir)
    found = checkpoint.load(directory, _best_step(directory) if step == "best" else step)
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = configs.from_dict({name: found.config[name] for name in fields & found.config.keys()})
    if task is not None:
        check_task(config.model, task)
    state = found.state
    averaged = averaged and bool(state["ema"])
    variables = state["ema"] if averaged else {n: state[n] for n in ("params", "batch_stats")}
    source = {"workdir": os.fspath(workdir), "step": found.step, "averaged": averaged}
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


def _best_step(directory: Path) -> int:
    """The step of the best checkpoint, by the metric that the run keeps it for."""
    metric = (checkpoint.newest_config(directory) or {}).get("keep_best")
    there = ", ".join(map(str, checkpoint.steps(directory)))
    if configs.BETTER.get(metric) is None:
        raise UsageError(
            f"the run in {directory.parent} keeps no best checkpoint; train with --keep_best, or "
            f"give one of its steps: {there}"
        )
    found = checkpoint.best_step(directory, metric, configs.BETTER[metric])
    if found is None:
        raise UsageError(
            f"no checkpoint in {directory} has a {metric} to be the best by; give one of its "
            f"steps: {there}"
        )
    return found[0]


def from_weights(
    name: str,
    path: str | os.PathLike,
    num_classes: int | None = None,
    task: str = "classification",
    class_names: Sequence[str] = (),
    other_names: Sequence[Sequence[str]] = (),
    **reading: Any,
) -> Trained:
    """Return the named model with the weights of a published file, and their preprocessing.

    Args:
      path: a file, or another source of weights.pretrained.locate, such as a tag. What is published
        of it (preprocessing, classes) belongs to the weights, not to the network.
      num_classes: by default as many as class_names, or without these as many as published.
      class_names, other_names: of the file's classes where they are known, see Trained.
      reading: how load_weights reads the file: averaged, norm_epsilon, say.

    Raises:
      UsageError: an unknown model, one for another task, a file that is not this model's, or
        another number of names than of classes.
    """
    check_task(name, task)
    located = pretrained.locate(name, path)
    entry, row = find(name), located.row
    if not class_names and num_classes in (None, len(located.class_names)):
        class_names = located.class_names
        if row and not other_names:
            other_names = named_classes.other_names(row.classes)
    num_classes = num_classes or len(class_names) or (row and row.num_classes) or None
    for names in filter(len, (class_names, *other_names)):
        if len(names) != num_classes:
            raise UsageError(f"{len(names)} class names are given for {num_classes} classes")
    variables = load_weights(name, located.path, num_classes, replace_head=False, **reading)
    expects = row or entry
    return Trained(
        create_model(name, num_classes),
        variables,
        Preprocessing(expects.image_size, expects.resize, expects.interpolation),
        expects.mean,
        expects.std,
        tuple(class_names),
        {
            "weights": os.fspath(path),
            "parameters_sha256": checkpoint.parameters_sha256(variables),
        },
        None,
        tuple(map(tuple, other_names)),
    )


def embedded() -> Trained:
    """Return the ImageNet network that comes with the set-up, see weights.pretrained.EMBEDDED."""
    return from_weights(pretrained.EMBEDDED[0], "pretrained")


def labelled(
    network: Trained, dataset: Dataset, warn: Callable[[str], None] = logging.warning
) -> Dataset:
    """Return the data set with its labels in the numbers of the network's classes.

    Whatever compares a network's answers with labels begins with this; see data.classes.matched.

    Args:
      warn: is told where classes can be matched by their numbers alone.

    Raises:
      UsageError: the data set has classes that the network does not know, or, of a network whose
        classes nobody names, another number of classes.
    """
    owner = network.source.get("workdir") or network.source.get("weights") or network.model.name
    if not network.class_names and dataset.num_classes != network.model.num_classes:
        raise UsageError(
            f"{dataset.name} has {dataset.num_classes} classes, {owner} tells "
            f"{network.model.num_classes} apart and does not name them; name them, in their order"
        )
    return classes.matched(
        dataset, network.class_names, owner, other_names=network.other_names, warn=warn
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


def layer_shapes(network: Trained, image_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return path -> shape of one image's activation, of every layer in order of execution.

    Args:
      image_shape: height, width and channels of the image.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = taps.activation_shapes(network.model.apply, network.variables, images)
    return {path: shape.shape[1:] for path, shape in found.items()}


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
