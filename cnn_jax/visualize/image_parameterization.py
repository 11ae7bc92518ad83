"""What an optimiser of images moves: pixels, or a spectrum in decorrelated colours.

The spectrum scales each frequency by its wavelength and so lets an optimiser move the large shapes
as easily as the fine grain. Olah, Mordvintsev & Schubert 2017, "Feature visualization", and Lucid,
whose constants these are.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# A square root of the covariance of ImageNet's colours, over its largest column norm (Lucid).
_COLOR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOR_MATRIX = _COLOR_ROOT / np.linalg.norm(_COLOR_ROOT, axis=0).max()

_NEAREST_TO_BLACK = 1e-3  # of an image that is to be encoded: a sigmoid never gets to 0 or 1


class Parameterization(NamedTuple):
    """The images as a function of what is optimised.

    init(key) -> parameters, drawn.  decode(parameters) -> images.
    encode(images) -> the parameters of images in 0..1 [n, h, w, c].
    """

    init: Callable[[Array], Array]
    decode: Callable[[Array], Float[Array, "n h w c"]]
    encode: Callable[[Float[Array, "n h w c"]], Array]


@functools.lru_cache(maxsize=16)  # one object for equal images, by which programs are found again
def pixels(
    shape: tuple[int, int, int, int], deviation: float = 0.01, bounded: bool = False
) -> Parameterization:
    """Parameterise images by their pixels.

    Args:
      shape: n, h, w, c.
      deviation: of the normal noise that init draws; around mid-grey.
      bounded: through a sigmoid, into 0..1; else mid-grey plus the parameters, unbounded.
    """

    def init(key: Array) -> Float[Array, "n h w c"]:
        return deviation * jax.random.normal(key, shape)

    if bounded:
        return Parameterization(init, jax.nn.sigmoid, _logit)
    return Parameterization(init, lambda x: x + 0.5, lambda images: images - 0.5)


@functools.lru_cache(maxsize=16)
def fourier(
    shape: tuple[int, int, int, int],
    deviation: float = 0.01,
    decay: float = 1.0,
    decorrelated: bool | None = None,
) -> Parameterization:
    """Parameterise images in 0..1 by the real and imaginary parts of their spectrum.

    Args:
      shape: n, h, w, c.
      deviation: of the normal spectrum that init draws.
      decay: a frequency f is scaled by 1 / max(f, 1 / max(h, w))^decay.
      decorrelated: mix the channels by COLOR_MATRIX; by default where there are three.

    The parameters are [n, h, w // 2 + 1, c, 2].
    """
    n, h, w, c = shape
    if decorrelated is None:
        decorrelated = c == 3
    frequencies = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w))
    scale = 1 / np.maximum(frequencies, 1 / max(h, w)) ** decay
    scale = scale[:, :, None] / 4  # Lucid: a larger divisor saturates less
    colors = COLOR_MATRIX if decorrelated else np.eye(c)

    def init(key: Array) -> Float[Array, "n h w2 c 2"]:
        return deviation * jax.random.normal(key, (n, h, w // 2 + 1, c, 2))

    def decode(spectrum: Float[Array, "n h w2 c 2"]) -> Float[Array, "n h w c"]:
        scaled = jax.lax.complex(spectrum[..., 0], spectrum[..., 1])
        scaled = scaled * scale.astype(spectrum.dtype)
        images = jnp.fft.irfft2(scaled, (h, w), axes=(1, 2), norm="ortho")
        return jax.nn.sigmoid(images @ colors.T.astype(spectrum.dtype))

    def encode(images: Float[Array, "n h w c"]) -> Float[Array, "n h w2 c 2"]:
        images = _logit(images) @ np.linalg.inv(colors).T.astype(images.dtype)
        spectrum = jnp.fft.rfft2(images, axes=(1, 2), norm="ortho") / scale.astype(images.dtype)
        return jnp.stack([spectrum.real, spectrum.imag], axis=-1)

    return Parameterization(init, decode, encode)


def _logit(images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    return jax.scipy.special.logit(jnp.clip(images, _NEAREST_TO_BLACK, 1 - _NEAREST_TO_BLACK))
