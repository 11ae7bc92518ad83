"""Random transformations that an optimised image must survive; differentiable, drawn by a key.

A Transform is f(key, images) -> images; every image of a batch draws its own. The constants of
`standard` are Lucid's (Olah, Mordvintsev & Schubert 2017).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

Transform = Callable[[Array, Float[Array, "n h w c"]], Float[Array, "n h2 w2 c"]]


def compose(*transforms: Transform) -> Transform:
    """Return the transform that applies these in turn."""

    def apply(key: Array, images: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        for i, transform in enumerate(transforms):
            images = transform(jax.random.fold_in(key, i), images)
        return images

    return apply


def pad(width: int, value: float | None = 0.5) -> Transform:
    """Surround with `width` pixels of a value, or with the image's reflection (None)."""
    border = ((0, 0), (width, width), (width, width), (0, 0))

    def apply(key: Array, images: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        del key
        if value is None:
            return jnp.pad(images, border, "reflect")
        return jnp.pad(images, border, constant_values=value)

    return apply


def jitter(distance: int) -> Transform:
    """Crop h - distance by w - distance pixels at a random place."""

    def apply(key: Array, images: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        n, h, w, c = images.shape
        corners = jax.random.randint(key, (n, 2), 0, distance + 1)

        def crop(image, corner):
            size = (h - distance, w - distance, c)
            return jax.lax.dynamic_slice(image, (*corner, 0), size)

        return jax.vmap(crop)(images, corners)

    return apply


def center_crop(height: int, width: int) -> Transform:
    """Crop the middle."""

    def apply(key: Array, images: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        del key
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        return images[:, top : top + height, left : left + width]

    return apply


def random_affine(
    scales: tuple[float, float] = (1.0, 1.0),
    degrees: tuple[float, float] = (0.0, 0.0),
    fill: float = 0.5,
) -> Transform:
    """Scale and rotate about the centre, both drawn uniformly; the size stays."""

    def apply(key: Array, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        by_scale, by_angle = jax.random.split(key)
        n = len(images)
        scale = jax.random.uniform(by_scale, (n,), images.dtype, *scales)
        angle = jax.random.uniform(by_angle, (n,), images.dtype, *degrees)
        return affine(images, scale, angle, fill)

    return apply


def affine(
    images: Float[Array, "n h w c"],
    scale: Float[Array, " n"],
    degrees: Float[Array, " n"],
    fill: float = 0.5,
) -> Float[Array, "n h w c"]:
    """Enlarge about the centre and turn counter-clockwise, by bilinear sampling.

    Args:
      fill: what is outside of an image.
    """
    h, w = images.shape[1:3]
    y, x = jnp.meshgrid(jnp.arange(h) - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2, indexing="ij")

    def one(image, scale, angle):
        cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
        places = [cos * y + sin * x + (h - 1) / 2, cos * x - sin * y + (w - 1) / 2]

        def sample(channel):
            return map_coordinates(channel - fill, places, order=1, mode="constant") + fill

        return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(one)(images, scale, jnp.deg2rad(degrees))


def gaussian_blur(images: Float[Array, "n h w c"], sigma: float) -> Float[Array, "n h w c"]:
    """Blur by a normal of this deviation in pixels, cut at four; edges are mirrored.

    Between the steps of an ascent it takes away fine grain (Yosinski et al. 2015).
    """
    radius = round(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = jnp.asarray(weights / weights.sum(), images.dtype)
    for axis in (1, 2):
        border = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        wide, side = jnp.pad(images, border, "symmetric"), images.shape[axis]
        images = sum(
            weight * jax.lax.slice_in_dim(wide, i, i + side, axis=axis)
            for i, weight in enumerate(weights)
        )
    return images


@functools.lru_cache(maxsize=16)  # one object for a size, by which programs are found again
def standard(size: int = 128) -> Transform:
    """Return Lucid's transformations, its distances of 128 pixels scaled to images of this size.

    Pad 12, jitter 8, scale by .9 to 1.1, rotate by -10 to 10 degrees, jitter 4; the middle of the
    former size is kept, so that networks of one input size can be looked into too.
    """
    padding, far, near = (max(1, round(d * size / 128)) for d in (12, 8, 4))

    def apply(key: Array, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        h, w = images.shape[1:3]
        steps = (
            pad(padding),
            jitter(far),
            random_affine((0.9, 1.1), (-10.0, 10.0)),
            jitter(near),
            center_crop(h, w),
        )
        return compose(*steps)(key, images)

    return apply
