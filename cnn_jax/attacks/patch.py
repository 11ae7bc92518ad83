"""Adversarial patches: a round sticker by which a network sees a class wherever it lies.

Brown, Mané, Roy, Abadi & Gilmer 2017, "Adversarial patch": the expected log odds of the class are
raised over images, places, sizes and turns of the patch. For what is printed and photographed its
light varies as well, as Athalye et al. 2018, "Synthesizing robust adversarial examples", have it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key

from cnn_jax.attacks import checks, loop
from cnn_jax.attacks.loop import Batching, LogitsOf
from cnn_jax.errors import UsageError
from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import Progress
from cnn_jax.tasks.classification import log_odds_against
from cnn_jax.visualize.image_parameterization import fourier

# watch(steps made, patch): what it raises ends the search
Watch = Callable[[int, Float[Array, "s s c"]], None]


class Places(NamedTuple):
    """Where and how a patch lies in each of n images.

    centre: (y, x), in shares of the image's height and width.
    diameter: in shares of the image's shorter side.
    degrees: by which it is turned counter-clockwise.
    contrast, brightness: its values become contrast * (value - .5) + .5 + brightness.
    """

    centre: Float[Array, "n 2"]
    diameter: Float[Array, " n"]
    degrees: Float[Array, " n"]
    contrast: Float[Array, " n"]
    brightness: Float[Array, " n"]


def diameter_of(area: float) -> float:
    """Return the diameter, in shares of a square image's side, of a disc with this share of it."""
    return float(np.sqrt(4 * area / np.pi))


def check_areas(low: float, high: float) -> None:
    """Raise UsageError for shares of an image that are out of order or that no disc has."""
    if not 0 < low <= high <= np.pi / 4:
        raise UsageError(
            f"shares {low:g} to {high:g} of an image are none that a disc has; give more than 0, "
            "up to 0.78, the least first"
        )


def random_places(
    key: Key[Array, ""],
    count: int,
    *,
    areas: tuple[float, float],
    degrees: float = 45.0,
    light: float = 0.0,
) -> Places:
    """Return places drawn uniformly, of patches that lie wholly in their square images.

    Args:
      areas: the least and the largest share of the image.
      degrees: patches are turned by up to so many either way.
      light: contrasts are within 1 +- light, brightnesses within +- light.
    """
    low, high = map(diameter_of, areas)
    by_size, by_place, by_turn, by_contrast, by_brightness = jax.random.split(key, 5)
    draw = partial(jax.random.uniform, dtype=jnp.float32)  # the same under jax_enable_x64
    diameter = draw(by_size, (count,), minval=low, maxval=high)
    free = draw(by_place, (count, 2))
    return Places(
        diameter[:, None] / 2 + free * (1 - diameter[:, None]),
        diameter,
        draw(by_turn, (count,), minval=-degrees, maxval=degrees),
        1 + light * draw(by_contrast, (count,), minval=-1, maxval=1),
        light * draw(by_brightness, (count,), minval=-1, maxval=1),
    )


def lay(
    images: Float[Array, "n h w c"], patch: Float[Array, "s s c"], places: Places
) -> Float[Array, "n h w c"]:
    """Return the images with the patch's disc on them, pixels kept in 0..1.

    The patch is sampled bilinearly; a pixel on its rim holds the share of it that lies inside.
    """
    h, w = images.shape[1:3]
    size, dtype = patch.shape[0], images.dtype
    patch, places = jax.tree.map(lambda x: jnp.asarray(x, dtype), (patch, places))
    rows, columns = jnp.arange(h, dtype=dtype) + 0.5, jnp.arange(w, dtype=dtype) + 0.5
    y, x = jnp.meshgrid(rows, columns, indexing="ij")

    def one(image: Float[Array, "h w c"], place: Places) -> Float[Array, "h w c"]:
        radius = place.diameter * min(h, w) / 2
        down, right = y - place.centre[0] * h, x - place.centre[1] * w
        angle = jnp.deg2rad(place.degrees)
        cos, sin = jnp.cos(angle) / radius, jnp.sin(angle) / radius
        # in radii of the patch, before it was turned
        v, u = cos * down + sin * right, cos * right - sin * down
        points = [(v + 1) / 2 * size - 0.5, (u + 1) / 2 * size - 0.5]

        def sample(channel: Float[Array, "s s"]) -> Float[Array, "h w"]:
            return map_coordinates(channel, points, order=1, mode="nearest")

        shown = jax.vmap(sample, in_axes=-1, out_axes=-1)(patch)
        shown = place.contrast * (shown - 0.5) + 0.5 + place.brightness
        inside = jnp.clip((1 - jnp.hypot(v, u)) * radius + 0.5, 0, 1)[..., None]
        return image + inside * (jnp.clip(shown, 0, 1) - image)

    return jax.vmap(one)(images, places)


def adversarial_patch(
    logits_of: LogitsOf,
    images: Float[Array, "n h w c"],
    target: int,
    key: Key[Array, ""],
    *,
    size: int = 112,
    areas: tuple[float, float] = (0.05, 0.25),
    degrees: float = 45.0,
    light: float = 0.1,
    steps: int = 200,
    learning_rate: float = 0.05,
    batch_size: int = 8,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Float[np.ndarray, "size size c"]:
    """Return the patch, in 0..1, that makes the network see the target in most of the images.

    Adam lowers the mean log odds against the target over the patch's spectrum in decorrelated
    colours; each step takes images and places of its own. Over its pixels it would take many times
    as long: what they learn is too fine to outlast turning and scaling.

    Args:
      images: square, in 0..1, of any classes.
      key: of the start, the images and the places.
      size: height and width of the patch in pixels.
      areas, degrees, light: of `random_places`.

    Raises:
      UsageError: no image, images that are not square or not in units of 0..1, no such class, or
        areas that are not between 0 and what a disc can have, .78.
    """
    images = _checked(logits_of, images, target)
    check_areas(*areas)
    logits_of = as_partial(logits_of)
    by_start, key = jax.random.split(key)
    parameterization = fourier((1, size, size, images.shape[-1]))
    values = parameterization.init(by_start)
    state = optax.adam(learning_rate).init(values)
    settings = {"areas": tuple(areas), "degrees": degrees, "light": light}
    labels = np.full(batch_size, target, np.int32)
    for i in range(steps) if progress is None else progress(range(steps), steps):
        by_image, by_place = jax.random.split(jax.random.fold_in(key, i))
        chosen = np.asarray(jax.random.randint(by_image, (batch_size,), 0, len(images)))
        values, state = _step(
            logits_of,
            values,
            state,
            *(images[chosen], labels, by_place),
            decode=parameterization.decode,
            learning_rate=learning_rate,
            **settings,
        )
        if watch is not None:
            watch(i + 1, parameterization.decode(values)[0])
    return np.asarray(parameterization.decode(values)[0])


@partial(jax.jit, static_argnames=("decode", "learning_rate", "areas", "degrees", "light"))
def _step(
    logits_of, values, state, images, labels, key, *, decode, learning_rate, areas, degrees, light
):
    """One step down the mean log odds against the labels."""
    places = random_places(key, len(images), areas=areas, degrees=degrees, light=light)

    def loss(values):
        return log_odds_against(logits_of(lay(images, decode(values)[0], places)), labels).mean()

    updates, state = optax.adam(learning_rate).update(jax.grad(loss)(values), state)
    return optax.apply_updates(values, updates), state


def laid_at_random(
    images: Float[np.ndarray, "n h w c"],
    patch: Float[np.ndarray, "s s c"],
    key: Key[Array, ""],
    *,
    area: float,
    degrees: float = 45.0,
    light: float = 0.0,
    batch_size: int = 32,
) -> Float[np.ndarray, "n h w c"]:
    """Return the images, each with the patch of this share of it at a place of its own."""
    places = random_places(key, len(images), areas=(area, area), degrees=degrees, light=light)
    parts = [
        _lay(images[start : start + batch_size], patch, _rows(places, start, batch_size))
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate([np.asarray(part) for part in parts])


def success_rate(
    logits_of: LogitsOf,
    images: Float[np.ndarray, "n h w c"],
    patched: Float[np.ndarray, "n h w c"],
    target: int,
    batching: Batching = loop.DEFAULT,
) -> float:
    """Return the share of patched images that are taken for the target, and were not without it.

    NaN where the network sees the target in every image as it is.
    """
    others = loop.predictions(logits_of, images, batching) != target
    fooled = loop.predictions(logits_of, patched, batching) == target
    return float(fooled[others].mean()) if others.any() else float("nan")


_lay = jax.jit(lay)


def _rows(places: Places, start: int, count: int) -> Places:
    return jax.tree.map(lambda x: x[start : start + count], places)


def _checked(logits_of: LogitsOf, images: Array, target: int) -> np.ndarray:
    """Return the images as NumPy's, refused where no patch can be made of them."""
    if not len(images):
        raise UsageError("there is no image to make a patch of")
    if images.shape[1] != images.shape[2]:
        raise UsageError(f"images of {images.shape[1:3]} pixels are not square; crop them first")
    images, _ = checks.labelled(logits_of, images, np.full(len(images), target, np.int32))
    return images
