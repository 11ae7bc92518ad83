"""The table of models by name, and the two functions that a model is."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import flax.core
import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Array, Float

from cnn_jax import errors, plugins
from cnn_jax.errors import UsageError
from cnn_jax.models import (
    airbench,
    alexnet,
    convnext,
    densenet,
    efficientnet,
    fast_rcnn,
    faster_rcnn,
    faster_rcnn_c4,
    fcn,
    googlenet,
    lenet,
    localization,
    mask_rcnn,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    nasnet,
    rcnn,
    regnet,
    resnet,
    resnext,
    segmentation,
    segnet,
    senet,
    unet,
    vgg,
    wide_resnet,
    zfnet,
)
from cnn_jax.models.entry import Entry
from cnn_jax.ops.activation import RELU_RULES
from cnn_jax.taps import Tap

MODELS: dict[str, Entry] = {
    **airbench.MODELS,
    **alexnet.MODELS,
    **convnext.MODELS,
    **densenet.MODELS,
    **efficientnet.MODELS,
    **fast_rcnn.MODELS,
    **faster_rcnn.MODELS,
    **faster_rcnn_c4.MODELS,
    **fcn.MODELS,
    **googlenet.MODELS,
    **lenet.MODELS,
    **localization.MODELS,
    **mask_rcnn.MODELS,
    **mobilenet_v1.MODELS,
    **mobilenet_v2.MODELS,
    **mobilenet_v3.MODELS,
    **nasnet.MODELS,
    **rcnn.MODELS,
    **regnet.MODELS,
    **resnet.MODELS,
    **resnext.MODELS,
    **segmentation.MODELS,
    **segnet.MODELS,
    **senet.MODELS,
    **unet.MODELS,
    **vgg.MODELS,
    **wide_resnet.MODELS,
    **zfnet.MODELS,
}

Variables = Mapping[str, Any]


class Model(NamedTuple):
    """A network as two pure functions.

    init(key, images) -> variables: {"params": ..., "batch_stats": ...}, nested dicts of float32
      arrays; images [n, h, w, c] count by their shape alone and may be a jax.ShapeDtypeStruct.
    apply(variables, images, *, train=False, mutable=(), rngs=None, tap=None,
        relu_rule="gradient", axis_name=None, norm_batch=None, remat=False, stays=None, **inputs)
        -> logits [n, classes]
      (for another task what the family says) in the dtype of the images; (logits, updates) when
      `mutable` names collections to be returned as the call leaves them:
      apply(..., train=True, mutable=["batch_stats"]).
      train: normalise by the batch, drop out (which needs rngs={"dropout": key}).
      tap: f(path, activation) -> activation, see cnn_jax.taps.
      relu_rule: a name in ops.RELU_RULES, or f(x, g) -> gradient of x.
      axis_name: the mapped axis over which batch statistics are averaged.
      norm_batch: batch statistics are those of each so many consecutive examples; None: of all.
      remat: keep the blocks' outputs alone and recompute the rest in the backward pass; only what
        lies outside of the blocks passes the tap then, such as auxiliary heads. "wide": keep the
        outputs of convolutions too that do not widen. "deep": keep few of the blocks' outputs,
        see cnn_jax.layers.chain.
      stays: f(path) -> whether the parameter there is not trained: a batch norm of which all stays
        normalises by its running statistics in training too.
      inputs: arrays that the family's function takes besides the images, such as the sizes of a
        detector's images in their canvas.
    """

    name: str
    init: Callable[..., Variables]
    apply: Callable[..., Any]
    num_classes: int
    image_size: int
    channels: int
    task: str = "classification"


def _init(function: Callable, key: Array, images: Any) -> Variables:
    """Draw the variables; the forward pass is traced for its shapes alone."""

    def draw(key: Array) -> Variables:
        zeros = jnp.zeros(images.shape, images.dtype)
        return flax.core.unfreeze(flax.core.init(function)({"params": key}, zeros)[1])

    if isinstance(key, jax.core.Tracer):  # the caller's tracing leaves out what it does not use
        return draw(key)
    traced, shapes = jax.make_jaxpr(draw, return_shape=True)(key)
    needed, _ = dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True)
    leaves = jax.core.eval_jaxpr(needed, traced.consts, key)
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _apply(
    function: Callable,
    variables: Variables,
    images: Float[Array, "n h w c"],
    *,
    train: bool = False,
    mutable: Iterable[str] = (),
    rngs: Mapping[str, Array] | None = None,
    tap: Tap | None = None,
    relu_rule: str | Callable = "gradient",
    axis_name: str | None = None,
    norm_batch: int | None = None,
    remat: bool | str = False,
    stays: Callable[[str], bool] | None = None,
    **inputs: Any,
) -> Any:
    if isinstance(relu_rule, str) and relu_rule not in RELU_RULES:
        raise errors.unknown("ReLU rule", relu_rule, RELU_RULES)
    for name in inputs:
        if name not in (known := inspect.signature(function).parameters):
            raise errors.unknown("argument of apply", name, known)
    flags = {
        "train": train,
        "tap": tap,
        "relu_rule": relu_rule,
        "axis_name": axis_name,
        "norm_batch": norm_batch,
        "remat": remat,
        "stays": stays,
    }
    mutable = [mutable] if isinstance(mutable, str) else list(mutable)
    call = flax.core.apply(function, mutable=mutable or False, flags=flags)
    images = jnp.asarray(images)  # NumPy's float64 is JAX's float32
    return call(variables, images, rngs=rngs, **inputs)


def model_names() -> list[str]:
    """Return the names that create_model knows, sorted."""
    return sorted(MODELS)


def register_model(name: str, model: Entry | Callable[..., Array]) -> None:
    """Let create_model and every command know a model by this name.

    Args:
      model: f(scope, images, num_classes, **options) -> logits [n, classes], written as those of
        cnn_jax.models; or an Entry, which also says its native size, task and preprocessing.

    Raises:
      UsageError: the name is taken, or this is no such function.
    """
    plugins.register(MODELS, "model", name, _as_entry(name, model))


def find(name: str) -> Entry:
    """Return the row of a model, of the table or by its address "package.module:function".

    Raises:
      UsageError: there is none, or it is no function of scope, images and num_classes.
    """
    if plugins.is_address(name):
        return _as_entry(name, plugins.find(name, "model"))
    if name not in MODELS:
        raise errors.unknown("model", name, MODELS)
    return MODELS[name]


def _as_entry(name: str, model: Any) -> Entry:
    entry = model if isinstance(model, Entry) or not callable(model) else Entry(model)
    if isinstance(entry, Entry):
        parameters = list(inspect.signature(entry.function).parameters)
        if len(parameters) > 2 and parameters[2] == "num_classes":
            return entry
    raise UsageError(
        f"the model {name} is not written as f(scope, images, num_classes, **options) or as an "
        "Entry of such a function; see cnn_jax/models/lenet.py"
    )


def create_model(name: str, num_classes: int | None = None, **options: Any) -> Model:
    """Return the named model with a head for num_classes (by default as many as published).

    Args:
      name: of model_names(), or the address of a function: "package.module:function".
      options: keyword arguments of the family's function, e.g. zero_init_residual=True.

    Raises:
      UsageError: a name that is neither in model_names() nor the address of a function, or an
        option that the family does not have.
    """
    entry = find(name)
    known = list(inspect.signature(entry.function).parameters)[3:]  # after scope, images, classes
    for option in options:
        if option not in known:
            raise errors.unknown(f"option of {name}", option, known)
    classes = entry.num_classes if num_classes is None else num_classes
    if not isinstance(classes, Integral) or classes < 1:
        raise UsageError(f"num_classes is {classes}; a classifier needs one at least")
    function = partial(entry.function, num_classes=classes, **options)
    return Model(
        name,
        partial(_init, function),
        partial(_apply, function),
        classes,
        entry.image_size,
        entry.channels,
        entry.task,
    )


def check_task(name: str, task: str) -> None:
    """Raise UsageError unless the named model is there, and of this kind."""
    own = find(name).task
    if own != task:
        known = [each for each in model_names() if MODELS[each].task == task]
        raise UsageError(
            f"{name} is a {own} network; here a {task} network is needed, "
            f"such as {known[0] if known else 'none yet'}"
        )
