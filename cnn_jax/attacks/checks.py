"""What an attack takes, checked before it, and what it gives, checked after it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cnn_jax.attacks import loop
from cnn_jax.attacks.norms import NORMS
from cnn_jax.errors import UsageError


def labelled(
    logits_of: loop.LogitsOf, images: Float[Array, "n h w c"], labels: Int[Array, " n"]
) -> tuple[Float[np.ndarray, "n h w c"], Int[np.ndarray, " n"]]:
    """Return both on this host, in JAX's dtype: float64 under jax_enable_x64 alone.

    Raises:
      UsageError: these are not images with pixels in 0..1 and one of the network's classes each.
    """
    images = np.asarray(jnp.asarray(images))
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        found = f"{images.dtype}{list(images.shape)}"
        raise UsageError(f"images are {found}; give floats [n, height, width, channels]")
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    if not (low >= 0 and high <= 1):
        hint = "divide by 255" if high > 2 else "undo the normalisation, which the network does"
        raise UsageError(f"pixels go from {low:.4g} to {high:.4g}, not from 0 to 1; {hint}")
    return images, classes_of("label", labels, logits_of, images)


def classes_of(
    name: str, numbers: Int[Array, " n"], logits_of: loop.LogitsOf, images: Float[Array, "n h w c"]
) -> Int[np.ndarray, " n"]:
    """Return the labels or targets, whichever the name says, as int32 on this host.

    Raises:
      UsageError: they are not one an image, or not among the network's classes.
    """
    numbers = np.asarray(numbers)
    if numbers.shape != images.shape[:1]:
        raise UsageError(f"{len(images)} images, {name}s {list(numbers.shape)}; give one an image")
    if len(numbers) and not np.issubdtype(numbers.dtype, np.integer):
        raise UsageError(f"{name}s are {numbers.dtype}; give integers, a class each")
    count = loop.classes(logits_of, images)
    outside = np.flatnonzero((numbers < 0) | (numbers >= count))
    if len(outside):
        raise UsageError(
            f"the {name} of image {outside[0]} is {numbers[outside[0]]}, and the network's "
            f"{count} classes are 0 to {count - 1}; give one of these"
        )
    return numbers.astype(np.int32)


def check_eps(eps: float, norm: str, pixels: int) -> None:
    """Raise UsageError for a budget that cannot be meant for pixels in 0..1.

    Args:
      pixels: values an image has, h * w * c.
    """
    if not eps > 0 or not math.isfinite(eps):
        raise UsageError(f"eps is {eps}; give a budget above 0")
    largest = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": pixels}[norm]
    if eps > largest:
        raise UsageError(
            f"eps is {eps:g} in {norm}, and images in 0..1 differ by {largest:g} at most; "
            f"in units of 255 it is {eps:g}/255 = {eps / 255:.4g}"
        )


def check_targets(labels: Int[Array, " n"], targets: Int[Array, " n"]) -> None:
    """Raise UsageError where a target is the image's own class."""
    same = np.flatnonzero(np.asarray(labels) == np.asarray(targets))
    if len(same):
        raise UsageError(
            f"the target of image {same[0]} is its own class, {int(labels[same[0]])}; give another"
        )


def targeted(
    logits_of: loop.LogitsOf,
    images: Float[Array, "n h w c"],
    labels: Int[np.ndarray, " n"],
    targets: Int[Array, " n"],
) -> Int[np.ndarray, " n"]:
    """Return the targets as int32 on this host.

    Raises:
      UsageError: they are not one an image, none of the network's classes, or the image's own.
    """
    targets = classes_of("target", targets, logits_of, images)
    check_targets(labels, targets)
    return targets


def assert_within(
    images: Float[np.ndarray, "n h w c"],
    adversarial: Float[np.ndarray, "n h w c"],
    eps: float,
    norm: str,
) -> None:
    """Assert that pixels are in 0..1 and perturbations within the budget, to rounding."""
    assert adversarial.min(initial=0) >= 0
    assert adversarial.max(initial=0) <= 1
    size = NORMS[norm].size(adversarial - images).max(initial=0)
    assert size <= largest(eps, adversarial.dtype)


def largest(eps: float, dtype: jnp.dtype) -> float:
    """Return the budget and what rounding may add to a perturbation of this size."""
    return float(eps + 16 * jnp.finfo(dtype).eps * (1 + eps))


def example_keys(
    key: Key[Array, ""] | None, indices: Int[Array, " n"] | None, count: int
) -> Key[Array, " n"]:
    """Return a key for each example, from its index alone.

    Args:
      indices: the examples' numbers in the data set; by default 0 to n - 1.

    Raises:
      UsageError: there is no key.
    """
    if key is None:
        raise UsageError("this attack draws at random; give it a key, as in jax.random.key(0)")
    indices = np.arange(count) if indices is None else np.asarray(indices)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.asarray(indices, jnp.uint32))
