"""Muon for the filters of convolutions, SGD for the rest.

Jordan 2024, "Muon: an optimizer for hidden layers in neural networks", as airbench94_muon.py of
github.com/KellerJordan/cifar10-airbench has it: in float64 the same filters after three steps.
"""

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from cnn_jax.errors import UsageError
from cnn_jax.training.paths import path_of


def _as_matrices(filters: PyTree) -> PyTree:
    """A kernel [*size, in, out] is a matrix of one column a filter."""
    return jax.tree.map(
        lambda kernel: MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), kernel.ndim - 1), filters
    )


def _renormalized(updates: PyTree, filters: PyTree) -> PyTree:
    """Before the update, scale each kernel to filters of mean square norm one."""

    def update(change, kernel):
        return change + kernel * (jnp.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel) - 1)

    return jax.tree.map(update, updates, filters)


def orthogonalized(
    learning_rate: optax.Schedule, momentum: float, *, iterations: int = 5, normalize: bool = False
) -> optax.GradientTransformation:
    """Return the rule that moves kernels along their orthogonalised Nesterov momentum.

    Args:
      iterations: of Newton and Schulz, towards equal singular values.
      normalize: keep the filters' mean square norm at one.
    """
    rule = optax.chain(
        optax.trace(momentum, nesterov=True),  # for optax's own corrects a bias: not the authors'
        scale_by_muon(
            ns_steps=iterations,
            beta=0.0,
            eps=1e-7,
            nesterov=False,
            weight_dimension_numbers=_as_matrices,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.chain(rule, optax.stateless(_renormalized)) if normalize else rule


def muon(
    course: optax.Schedule,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    decayed: Callable[[PyTree], PyTree] | None,
    *,
    iterations: int = 5,
    normalize: bool = False,
    sgd_momentum: float = 0.9,
    sgd_rates: Mapping[str, tuple[float, float]] = {".*": (0.1, 1.0)},
) -> optax.GradientTransformation:
    """Return the rule: orthogonalised momentum for what has more than two axes, SGD for the rest.

    Args:
      course: step -> share of the peak learning rate.
      learning_rate, momentum, iterations, normalize: of the filters.
      weight_decay: what an update at the peak takes of a weight of SGD's, whatever its rate.
      decayed: which of them, as optax masks; None: all.
      sgd_rates: pattern of paths -> (peak learning rate, the share of the run in which it follows
        the course to its end); the first that matches from the path's start counts.

    Raises:
      UsageError: at init, a parameter that no pattern matches.
    """

    def sgd(peak, share):
        rate = lambda step: peak * course(step / share)  # noqa: E731
        decay = optax.add_decayed_weights(weight_decay / peak, decayed)
        return optax.chain(decay, optax.sgd(rate, sgd_momentum, nesterov=True))

    def label(key_path, parameter):
        path = path_of(key_path)
        if parameter.ndim > 2:
            return "filters"
        for pattern in sgd_rates:
            if re.match(pattern, path):
                return pattern
        raise UsageError(f"sgd_rates={dict(sgd_rates)} has no rate for {path}; add '.*'")

    filters = orthogonalized(
        lambda step: learning_rate * course(step),
        momentum,
        iterations=iterations,
        normalize=normalize,
    )
    rules = {"filters": filters} | {pattern: sgd(*rate) for pattern, rate in sgd_rates.items()}
    return optax.partition(rules, lambda params: jax.tree_util.tree_map_with_path(label, params))
