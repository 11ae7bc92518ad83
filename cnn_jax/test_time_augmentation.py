"""Test-time augmentation: a network's outputs are averaged over views of an image.

As in Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU".
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Outputs = Callable[[Float[Array, "n h w c"]], Float[Array, "n *hw classes"]]


def mirrored(outputs_of: Outputs, axis: int = 2) -> Outputs:
    """Return f(images) -> the mean outputs of the images and their mirror images.

    Outputs of every pixel are mirrored back.

    Args:
      axis: 2 exchanges left and right, 1 top and bottom.
    """

    def averaged(images):
        of_mirror = outputs_of(jnp.flip(images, axis))
        if of_mirror.ndim == 4:
            of_mirror = jnp.flip(of_mirror, axis)
        return (outputs_of(images) + of_mirror) / 2

    return averaged


def mirrored_and_shifted(outputs_of: Outputs) -> Outputs:
    """Return f(images) -> the mean of six views' outputs, each one vector an image.

    Half of it comes from the images and their mirror images, a quarter each from both shifted by
    one pixel, down and right, and up and left; what is missing is reflected.
    """
    both = mirrored(outputs_of)

    def averaged(images):
        height, width = images.shape[1:3]
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        shifted = both(padded[:, :height, :width]) + both(padded[:, 2:, 2:])
        return both(images) / 2 + shifted / 4

    return averaged


VIEWS: dict[str, Callable[[Outputs], Outputs]] = {
    "one": lambda outputs_of: outputs_of,
    "mirror": mirrored,
    "mirrors": lambda outputs_of: mirrored(mirrored(outputs_of), axis=1),
    "mirror_shift": mirrored_and_shifted,
}
