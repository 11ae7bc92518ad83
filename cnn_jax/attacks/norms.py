"""The norms that perturbations are measured in, and what an attack needs of each."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from cnn_jax import errors

_TINY = 1e-12  # keeps a zero vector zero where it is divided by its norm


class Norm(NamedTuple):
    """One norm, as functions of perturbations v [n, h, w, c], each example by itself.

    size(v) -> [n].
    dual(v) -> [n]: the norm that bounds v . d over all d of size one.
    ascent(gradient) -> v of size one (l-infinity: of sign entries), along which one steps.
    project(v, eps [n]) -> v of size eps at most, scaled towards zero (l-infinity: clipped).
    random(keys [n], v) -> like v, drawn uniformly from the unit ball.
    """

    name: str
    size: Callable[[Array], Array]
    dual: Callable[[Array], Array]
    ascent: Callable[[Array], Array]
    project: Callable[[Array, Array], Array]
    random: Callable[[Array, Array], Array]


def broadcast(values: Shaped[Array, " n"], like: Shaped[Array, "n ..."]) -> Shaped[Array, "n ..."]:
    """Return one value an example with trailing axes of size one, to meet images."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def flat(v: Float[Array, "n ..."]) -> Float[Array, "n d"]:
    """Return each example as a row, of no examples too."""
    return v.reshape(len(v), math.prod(v.shape[1:]))


def l1(v: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Return the sum of the absolute values of each example."""
    return jnp.abs(flat(v)).sum(axis=1)


def l2(v: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Return the Euclidean length of each example."""
    return jnp.sqrt(jnp.square(flat(v)).sum(axis=1))


def linf(v: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Return the largest absolute value of each example."""
    return jnp.abs(flat(v)).max(axis=1)


def _scaled(size: Callable) -> tuple[Callable, Callable]:
    """Return ascent and project of a norm that both rescale."""

    def ascent(gradient):
        # in two steps, as the squares of a very small or large gradient are zero or infinite
        largest = linf(gradient)
        gradient = gradient / broadcast(jnp.where(largest > 0, largest, 1), gradient)
        return gradient / broadcast(jnp.maximum(size(gradient), _TINY), gradient)

    def project(v, eps):
        return v * broadcast(jnp.minimum(1, eps / jnp.maximum(size(v), _TINY)), v)

    return ascent, project


def _clip(v: Array, eps: Array) -> Array:
    return jnp.clip(v, -broadcast(eps, v), broadcast(eps, v))


def _each(draw: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Draw each example from its own key, whatever batch it is in."""
    return jax.vmap(draw)


def _uniform_box(key: Key[Array, ""], v: Array) -> Array:
    return jax.random.uniform(key, v.shape, v.dtype, -1, 1)


def _uniform_sphere(key: Key[Array, ""], v: Array) -> Array:
    """Drop two coordinates of a point on the sphere (Voelker et al. 2017)."""
    normal = jax.random.normal(key, (v.size + 2,), v.dtype)
    return (normal / jnp.linalg.norm(normal))[: v.size].reshape(v.shape)


def _uniform_cross(key: Key[Array, ""], v: Array) -> Array:
    """Drop one of the shares that exponential variables have in their sum, and draw signs."""
    sign_key, share_key = jax.random.split(key)
    shares = jax.random.exponential(share_key, (v.size + 1,), v.dtype)
    signs = jax.random.rademacher(sign_key, (v.size,), v.dtype)
    return (signs * (shares / shares.sum())[: v.size]).reshape(v.shape)


NORMS = {
    "linf": Norm("linf", linf, l1, jnp.sign, _clip, _each(_uniform_box)),
    "l2": Norm("l2", l2, l2, *_scaled(l2), _each(_uniform_sphere)),
    "l1": Norm("l1", l1, linf, *_scaled(l1), _each(_uniform_cross)),
}


def find(name: str, known: tuple[str, ...] = tuple(NORMS)) -> Norm:
    """Return the named norm.

    Raises:
      UsageError: a name that is not among those the attack knows.
    """
    if name not in known:
        raise errors.unknown("norm", name, known)
    return NORMS[name]
