"""The variables that training starts from: drawn, from a weights file, or from another run."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from cnn_jax import trained
from cnn_jax.data import classes
from cnn_jax.errors import UsageError
from cnn_jax.models import Model, create_model
from cnn_jax.models.registry import find
from cnn_jax.trained import Trained
from cnn_jax.training import checkpoint
from cnn_jax.training import config as configs
from cnn_jax.training.config import TrainConfig
from cnn_jax.weights import convert, load_weights, norms, pretrained


def initial_variables(
    config: TrainConfig,
    model: Model,
    channels: int,
    key: Array | None = None,
    *,
    class_names: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> PyTree:
    """Return the variables that training starts from, float32.

    Drawn by the seed; with config.init_from, from a weights file or from another run.

    Args:
      class_names: of the classes that are learnt, to which those of a run's head are compared.
      say: is told what was taken of a file or a run.

    Raises:
      UsageError: a size that the model cannot be built for, or a file or run that does not fit it.
    """
    if key is None:  # folded so that weights and dropout never share one
        key = jax.random.fold_in(jax.random.key(config.seed), 2**32 - 1)
    shape = (1, config.image_size, config.image_size, channels)
    try:
        variables = model.init(key, jax.ShapeDtypeStruct(shape, jnp.float32))
    except (UsageError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"{model.name} cannot be built for images of {shape[1:]}: {error}; "
            f"its own size is --image_size={model.image_size}"
        ) from error
    if config.init_from is None:
        return variables
    if is_run(config.init_from):
        return _from_run(config, model, variables, shape, class_names, say)
    return load_weights(
        model.name,
        pretrained.locate(model.name, config.init_from).path,
        model.num_classes,
        key=key,
        image_shape=shape[1:],
        say=say,
        **configs.literal_options(config.model_options),
    )


def is_run(source: str) -> bool:
    """Return whether a source of weights is the folder of a run, not one of published files."""
    folder = Path(source).expanduser()
    return folder.is_dir() and not any((*folder.glob("*.safetensors"), *folder.glob("*.pth")))


def as_published(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the channels, mean and deviation of named published weights.

    What is given stays, and files keep the data set's, as they always had.
    """
    source = config.init_from
    if source is None or Path(source).expanduser().exists():
        return config
    row = pretrained.locate(config.model, source).row
    if row is None:
        return config
    expected = {"channels": len(row.mean), "mean": row.mean, "std": row.std}
    if any(getattr(config, name) is not None for name in expected):
        return config
    return dataclasses.replace(config, **expected)


def _from_run(
    config: TrainConfig,
    model: Model,
    drawn: PyTree,
    shape: tuple[int, ...],
    class_names: Sequence[str],
    say: Callable[[str], None],
) -> PyTree:
    """The drawn variables with all that a run has learnt of them.

    Of the layers that end in one channel a class, the channels of the classes that the run knows by
    name are kept; other layers whose shape depends on the classes are kept where all classes are
    the same. Where the run's network is the backbone of this one, the backbone is.
    """
    run, source = _best_or_newest(config.init_from, say)
    backbone = convert.to_published(find(run.config.model), run.variables)
    tensors, beside = convert.as_backbone(find(model.name), backbone, drawn)
    head = _paths_of_classes(config, model, drawn, shape)
    try:
        filled = convert.from_published(find(model.name), tensors, drawn, head, beside)
    except UsageError:
        named = ("model", "model_options", "image_size")
        settings = " ".join(f"--{name}={getattr(run.config, name)!r}" for name in named)
        raise UsageError(
            f"the network of {source} does not fit this one; it was trained with {settings}"
        ) from None
    leaves, fresh = flatten_dict(filled), flatten_dict(drawn)
    if beside:
        leaves, note = norms.with_epsilon(find(model.name), leaves, list(backbone), None)
        kept = "as the backbone; all else is drawn anew" + (f"; {note}" if note else "")
    elif (tuple(class_names), model.num_classes) == (run.class_names, run.model.num_classes):
        kept = "the head with it"
    else:
        known = _numbers_in_run(class_names, run)
        learnt = flatten_dict(run.variables)
        for path in head:
            sizes = (model.num_classes, run.model.num_classes)
            leaves[path] = _by_class(fresh[path], learnt[path], known, sizes)
        names = [
            name for name, number in zip(class_names, known, strict=True) if number is not None
        ]
        kept = f"of the head {len(names)} of {len(class_names)} classes, by name"
        kept += f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""
        kept += "; the others are drawn anew" if len(names) < len(class_names) else ""
    weights = "averaged weights" if run.source["averaged"] else "weights"
    say(f"starting from the {weights} of {source}: {kept}")
    return unflatten_dict({path: jnp.asarray(leaf, jnp.float32) for path, leaf in leaves.items()})


def _best_or_newest(workdir: str, say: Callable[[str], None]) -> tuple[Trained, str]:
    """The run's network, of its best checkpoint if it keeps that, and where that lies in words."""
    folder, why = Path(workdir).expanduser(), ""
    before = checkpoint.newest_config(checkpoint.checkpoint_directory(folder)) or {}
    run, metric = None, before.get("keep_best")
    if configs.BETTER.get(metric):
        try:
            run, why = trained.from_workdir(folder, "best", task=None), f", its best {metric}"
        except UsageError as error:  # damaged, or none was evaluated
            say(f"{error}; taking the newest intact one")
    run = run or trained.from_workdir(folder, task=None)
    return run, f"{workdir}, step {run.source['step']}{why}"


def _paths_of_classes(
    config: TrainConfig, model: Model, variables: PyTree, shape: tuple[int, ...]
) -> list[tuple[str, ...]]:
    """The paths of the variables whose shape depends on the number of classes."""
    options = configs.literal_options(config.model_options)
    wider = create_model(model.name, model.num_classes + 1, **options)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    more = flatten_dict(jax.eval_shape(wider.init, jax.random.key(0), images))
    return [
        path for path, leaf in flatten_dict(variables).items() if leaf.shape != more[path].shape
    ]


def _numbers_in_run(class_names: Sequence[str], run: Trained) -> list[int | None]:
    """The run's number of each class; None for all where one side has no names."""
    same = tuple(class_names) == run.class_names
    if not same and (classes.are_numbers(class_names) or classes.are_numbers(run.class_names)):
        return [None] * len(class_names)
    return classes.numbers_among(class_names, run.class_names)


def _by_class(
    fresh: Array, learnt: Array, known: Sequence[int | None], sizes: tuple[int, int]
) -> Array:
    """The fresh variable with the learnt last axis of the known classes, if it is of classes."""
    if (fresh.shape[-1], learnt.shape[-1]) != sizes or fresh.shape[:-1] != learnt.shape[:-1]:
        return fresh
    here = [number for number, there in enumerate(known) if there is not None]
    there = [number for number in known if number is not None]
    return jnp.asarray(fresh).at[..., jnp.array(here, int)].set(learnt[..., there])
