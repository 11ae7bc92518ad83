"""Taps: reading and disturbing a model's named activations while it runs.

A tap is a function f(path, activation) -> activation that every layer's output passes through,
given to a call as `model.apply(variables, images, tap=...)`. Paths are those of the parameters:
"stage2_block1/conv1". What a caller does not use of what is read, XLA does not compute.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from cnn_jax import errors

Tap = Callable[[str, Array], Array]


def record(store: dict[str, Array], paths: Iterable[str] | None = None) -> Tap:
    """Return a tap that puts the activations of these paths (of all, without) into the store.

    The store belongs to one traced call: what it holds leaves the call by being returned.
    """
    wanted = None if paths is None else frozenset(paths)

    def tap(path: str, activation: Array) -> Array:
        if wanted is None or path in wanted:
            store[path] = activation
        return activation

    return tap


def add(perturbations: Mapping[str, Array]) -> Tap:
    """Return a tap that adds an array to the activation of each path.

    Added zeros make an activation an input: the gradient with respect to the zeros is the
    gradient with respect to the activation.
    """

    def tap(path: str, activation: Array) -> Array:
        if path not in perturbations:
            return activation
        return activation + perturbations[path].astype(activation.dtype)

    return tap


def replace(replacements: Mapping[str, Callable[[Array], Array]]) -> Tap:
    """Return a tap that passes the activation of each path through a function of the caller's."""
    return lambda path, activation: replacements.get(path, lambda x: x)(activation)


def compose(*taps: Tap) -> Tap:
    """Return the tap that applies these in turn."""

    def tap(path: str, activation: Array) -> Array:
        for each in taps:
            activation = each(path, activation)
        return activation

    return tap


def activation_shapes(
    apply: Callable[..., Any], variables: Any, images: Any, **options: Any
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return path -> shape and dtype of every activation, in order of execution, by tracing."""

    paths: list[str] = []

    def values(variables, images):
        store: dict[str, Array] = {}
        apply(variables, images, tap=record(store), **options)
        paths.extend(store)
        return tuple(store.values())

    shapes = jax.eval_shape(values, variables, images)
    return dict(zip(paths, shapes, strict=True))


def activations(
    apply: Callable[..., Any],
    variables: Any,
    images: Array,
    paths: Iterable[str] | None = None,
    **options: Any,
) -> tuple[Any, dict[str, Array]]:
    """Return apply's output and the activations of these paths (of all, without).

    Raises:
      UsageError: a path that no layer has; the message names the near ones.
    """
    store: dict[str, Array] = {}
    paths = None if paths is None else tuple(paths)
    seen: list[str] = []

    def note(path: str, activation: Array) -> Array:
        seen.append(path)
        return activation

    output = apply(variables, images, tap=compose(note, record(store, paths)), **options)
    for path in paths or ():
        if path not in store:
            raise errors.unknown("layer", path, seen)
    return output, store


class _Enough(Exception):
    """All that is wanted has been seen."""


def activations_alone(
    apply: Callable[..., Any],
    variables: Any,
    images: Array,
    paths: Iterable[str],
    **options: Any,
) -> dict[str, Array]:
    """Return the activations of these paths; the layers behind the last one are not even traced.

    So a head that is made for one size of images does not mind another.

    Raises:
      UsageError: a path that no layer has; the message names the near ones.
    """
    paths, seen = tuple(paths), {}

    def note(path: str, activation: Array) -> Array:
        seen[path] = activation
        if all(path in seen for path in paths):
            raise _Enough
        return activation

    try:
        apply(variables, images, tap=note, **options)
    except _Enough:
        return {path: seen[path] for path in paths}
    raise errors.unknown("layer", next(path for path in paths if path not in seen), seen)


def gradients(
    apply: Callable[..., Any],
    objective: Callable[[Any], Array],
    variables: Any,
    images: Array,
    paths: Iterable[str],
    **options: Any,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the activations of these paths and d objective(output) / d activation.

    Args:
      objective: a scalar of apply's output, for example the sum of one class's logits.
    """
    paths = tuple(paths)
    shapes = activation_shapes(apply, variables, images, **options)
    for path in paths:
        if path not in shapes:
            raise errors.unknown("layer", path, shapes)
    zeros = {path: jnp.zeros(shapes[path].shape, shapes[path].dtype) for path in paths}

    def disturbed(perturbations):
        store: dict[str, Array] = {}
        tap = compose(add(perturbations), record(store, paths))
        return objective(apply(variables, images, tap=tap, **options)), store

    slopes, values = jax.grad(disturbed, has_aux=True)(zeros)
    return values, slopes
